#!/bin/sh
# Runs, again and again, what starts other processes and waits for them, on a machine that
# is kept busy: what only usually passes fails here. `make busy` builds what it needs.
#
#     internal/check/busy.sh [TIMES [KIND]...]
#
# KIND is caddy, envoy, demo, example, edge or command; all of them if none is given.
set -u
times=${1:-30}
[ $# -gt 0 ] && shift
kinds=${*:-caddy envoy demo example edge command}

cd "$(dirname "$0")/../.." || exit 1
root=$PWD
dir=$(mktemp -d)
load=
trap 'kill $load 2>/dev/null; wait $load 2>/dev/null; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

# compile NAME PACKAGE builds the package's tests; run runs them where they are.
compile() { go test -c -o "$dir/$1.test" "./$2" || exit 1; }
run() { (cd "$root/$2" && "$dir/$1.test" -test.timeout 10m -test.run "$3" -test.skip "${4:-^$}"); }

for kind in $kinds; do
	case $kind in
	caddy | envoy) go build -o "$dir/conformance" ./internal/check/conformance || exit 1 ;;
	demo) compile demo internal/demo ;;
	example) compile example examples/envoy ;;
	edge) compile edge caddymodule ;;
	command) compile command caddymodule/command ;;
	*) echo "$kind: use caddy, envoy, demo, example, edge or command" >&2; exit 1 ;;
	esac
done

# The load: everything that the verifier is made of, built anew all the time.
(
	trap 'kill $! 2>/dev/null; exit' TERM
	while :; do GOCACHE="$dir/cache" go build -a ./core/... & wait $!; done
) &
load=$!

once() {
	case $1 in
	caddy | envoy) "$dir/conformance" -host "$1" -policy default ;;
	demo) run demo internal/demo . ;;
	example) run example examples/envoy . ;;
	edge) run edge caddymodule . '^Test(ReloadUnderLoad|Rotation)' ;;
	command) run command caddymodule/command . ;;
	esac
}

failed=0
for kind in $kinds; do
	bad=0
	for i in $(seq "$times"); do
		if ! once "$kind" >"$dir/log" 2>&1; then
			bad=$((bad + 1))
			echo "--- $kind, run $i:"
			grep -v '^{' "$dir/log" | tail -30
		fi
	done
	echo "$kind: $times runs, $bad failed"
	failed=$((failed + bad))
done
[ "$failed" -eq 0 ]
