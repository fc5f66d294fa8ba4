# Sourced by qemu/arm64 and qemu/debian: how QEMU emulates a guest that virtme-ng cannot boot.
# shellcheck shell=bash disable=SC2154

# emulate LIMIT CONSOLE QEMU [ARGUMENT]...: boots a guest, and ends this script with it: by status
# 124 if it did not end within LIMIT seconds, by 125 if it did not boot, or died. Its console goes
# to the file CONSOLE; its character device `results` is this script's standard output.
emulate() {
	local limit=$1 console=$2 status=0 problem=''
	shift 2
	# In the foreground: in a process group of its own it would outlive a stage that is interrupted.
	timeout --foreground "$limit" "$@" -display none -no-reboot -nodefaults -serial "file:$console" \
		-chardev "file,id=results,path=/proc/self/fd/1" </dev/null || status=$?
	if ((status == 124)); then
		problem="the guest did not end within $limit seconds"
	elif ((status)); then
		status=125 problem="QEMU failed"
	elif ! grep -q 'reboot: Power down' "$console"; then
		status=125 problem="the guest did not boot, or died"
	fi
	if [[ $problem ]]; then say "error: $problem. Its console is in $console."; fi
	exit "$status"
}
