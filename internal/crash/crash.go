// Package crash names the points between the steps of publishing and of
// remembering at which a test kills the process, to see that whatever is left
// on disk is whole. Outside of such tests a point does nothing.
package crash

// At is called at every point, with its name. Tests set it.
var At = func(string) {}

// Point marks a point.
func Point(name string) { At(name) }
