package bundle

// The paths of a bundle's directory form, below its folder or its URL. An object is
// written before what names it: nodes and compiled policy, policy note, manifest.
const (
	PathManifest = "v1/manifest"
	PathPolicy   = "v1/policy" // the policy note
	pathNode     = "v1/node/"
	pathPack     = "v1/pack/"
)

// PathNode is where a node, or the compiled policy, stands.
func PathNode(h Hash) string {
	name := h.String()
	return pathNode + name[:2] + "/" + name[2:]
}

// PathPack is where a packed file to start from stands, by its tree's root.
func PathPack(root Hash) string { return pathPack + root.String() }
