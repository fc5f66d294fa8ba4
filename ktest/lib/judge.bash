# Sourced by ktest/lib/suites.bash: runs the suite SUITE in a guest, and tells as KTAP of the guest,
# too. RESULTS is the folder for what comes out of it, CONFIG the options that choose the kernel.
# shellcheck shell=bash disable=SC2153

# Whether the suite has printed any result: one that is lost on the way must not pass.
printed_something() { grep -qE '^ +(not )?ok ' "$RESULTS/$SUITE.ktap"; }

# in_guest [--backend vng|uml] [--timeout SECONDS] COMMAND...: COMMAND prints KTAP in a guest.
in_guest() {
	local options=("${CONFIG[@]}" --timeout 900)
	while [[ $1 == --* ]]; do
		options+=("$1" "$2")
		shift 2
	done
	judged "$TOP/qemu/guest" "${options[@]}" --console "$RESULTS/$SUITE.console" -- \
		"$TOP/ktest/guest/leaks" "$@"
}

# judged COMMAND...: COMMAND boots a guest, as qemu/guest does, that prints KTAP. Two more tests
# follow: the guest lived to the end, and its console tells of no trouble.
judged() {
	local results=$RESULTS/$SUITE status=0 failed=0 died=0 trouble=0
	ktap_begin 3
	"$@" 2>"$results.stderr" | ktap_subtests || status=$?
	if ((status)) || ! printed_something; then
		failed=1
		ktap_comment <"$results.stderr"
	fi
	ktap_result $failed "$SUITE"
	if ((status == 124 || status == 125)); then died=1; fi
	ktap_result $died guest
	"$TOP/ktest/lib/splats" "$results.console" | ktap_comment || trouble=1
	ktap_result $trouble console
}
