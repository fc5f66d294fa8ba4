# Sourced by qemu/guest: how user-mode Linux boots the guest. Sets `boot`; the descriptors are those
# of the table in qemu/guest.
# shellcheck shell=bash disable=SC2034,SC2154

overlays >"$run/overlays"

# Whether the guest's memory, a file of which it executes parts, can be in a folder: in a container
# /dev/shm often is too small, or noexec.
serves_as_memory() { # FOLDER
	[[ -w $1 && ,$(findmnt -n -o OPTIONS -T "$1" | tail -n1), != *,noexec,* ]] &&
		(($(df --output=avail -k "$1" | tail -n1) >= 1 << 20))
}
memory_folder=$run
if serves_as_memory /dev/shm; then memory_folder=/dev/shm; fi

boot=(env TMPDIR="$memory_folder" "$IMAGE" mem=1G root=/dev/root rootfstype=hostfs rootflags=/ ro
	panic=-1 oops=panic printk.devkmsg=on "init=$TOP/qemu/init/uml"
	con=null "con0=null,fd:2" ssl=null "ssl0=null,fd:1" "ssl1=null,fd:8" "ssl2=null,fd:6" -- "$run")
