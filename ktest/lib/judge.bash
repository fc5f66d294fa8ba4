# Sourced by ktest/lib/suites.bash: runs the suite SUITE in a guest, and tells as KTAP of the guest, too. RESULTS is the folder
# for what comes out of it, CONFIG the options that choose the kernel.
# shellcheck shell=bash disable=SC2153

# Whether the suite has printed any result: one that is lost on the way must not pass.
printed_something() { grep -qE '^ +(not )?ok ' "$RESULTS/$SUITE.ktap"; }

# in_guest [--backend vng|uml] [--timeout SECONDS] COMMAND...: COMMAND prints KTAP in a guest.
in_guest() {
	local options=("${CONFIG[@]}" --timeout 900)
	while [[ $1 == --* ]]; do options+=("$1" "$2"); shift 2; done
	judged "$TOP/qemu/guest" "${options[@]}" --console "$RESULTS/$SUITE.console" -- "$TOP/ktest/guest/leaks" "$@"
}

# judged COMMAND...: COMMAND boots a guest, as qemu/guest does, that prints KTAP. Two more tests follow: the guest lived to
# the end, and its console tells of no trouble.
judged() {
	local results=$RESULTS/$SUITE status=0 ok='' alive='' clean=''
	printf 'KTAP version 1\n1..3\n'
	"$@" 2>"$results.stderr" | sed -u 's/^/    /' || status=$?
	if ((status)) || ! printed_something; then ok='not '; sed 's/^/# /' "$results.stderr"; fi
	((status != 124 && status != 125)) || alive='not '
	printf '%sok 1 %s\n%sok 2 guest\n' "$ok" "$SUITE" "$alive"
	"$TOP/ktest/lib/splats" "$results.console" | sed 's/^/# /' || clean='not '
	printf '%sok 3 console\n' "$clean"
}
