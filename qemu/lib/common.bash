# Sourced by the scripts of qemu/ and ktest/: where things are, how they speak, how long work is shown.
# shellcheck shell=bash disable=SC2034
set -euo pipefail
export LC_ALL=C.UTF-8 # what apt and others print is read

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=qemu/versions
. "$TOP/qemu/versions"

[[ ${XDG_CACHE_HOME:-} == /* ]] || XDG_CACHE_HOME=${HOME:?is not set: set HOME or XDG_CACHE_HOME}/.cache # a relative one is to be ignored
CACHE=$XDG_CACHE_HOME/nextid
TOOLS=$CACHE/tools
LOGS=$CACHE/log
KVER=${KVER:-$KERNEL}
while [[ -e $CACHE/src/instead-of-$KVER ]]; do KVER=$(<"$CACHE/src/instead-of-$KVER"); done
TREE_NAME=$KVER${VARIANT:+-$VARIANT} # VARIANT: a tree beside the usual one, for other PATCHES
TREE=$CACHE/linux-$TREE_NAME
export CCACHE_DIR=${CCACHE_DIR:-$CACHE/ccache}
# One for each checkout: cargo takes for fresh what another one, with files of another age, has built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/cargo/target${TOP//\//-}}
# What runs a command in the guest, whose output is no terminal, as it would run on this one.
IN_COLOUR=(env)
[[ ! -t 1 || -n ${NO_COLOR:-} ]] || IN_COLOUR+=(CLICOLOR_FORCE=1)

say() { printf '%s\n' "$*" >&2; }

# die WHAT [WHAT-TO-DO]
die() {
	say "error: $1"
	[[ -z ${2:-} ]] || say "       $2"
	exit 1
}

# kbuild, overlays and QEMU part words at these characters; in the guest, folders of its own are in place of these.
for folder in "$TOP" "$CACHE" "$(realpath -m "$TOP")" "$(realpath -m "$CACHE")"; do
	[[ $folder != *[[:space:]:,]* ]] || die "$folder: no white space, ':' or ',' can be in this path" \
		"Move the checkout, or name another folder for the cache: XDG_CACHE_HOME=FOLDER"
	[[ ! $folder/ =~ ^/(dev|proc|run|sys|var/cache|var/log|var/tmp)/ ]] || die "$folder: the guest does not see this folder" \
		"Move the checkout, or name another folder for the cache: XDG_CACHE_HOME=FOLDER"
done
mkdir -p "$CACHE/src" "$CACHE/build" "$CACHE/run" "$TOOLS/bin" "$LOGS"

# The work tree, in step with patches/. The script starts anew where another version has come to stand in for KVER meanwhile.
ARGUMENTS=("$@")
update_tree() {
	"$TOP/qemu/tree"
	[[ ! -e $CACHE/src/instead-of-$KVER ]] || exec "$0" "${ARGUMENTS[@]}"
}

# at_least VERSION MINIMUM
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1) == "$2" ]]; }

# lock NAME [-s]: waits for the lock on a part of the cache, alone or (-s) shared; it is held until the script ends.
declare -A LOCKS
lock() {
	local fd=${LOCKS[$1]:-}
	[[ $fd ]] || exec {fd}>"$CACHE/$1.lock"
	LOCKS[$1]=$fd
	flock -n "${2:--x}" "$fd" && return
	say "waiting for another run that uses $CACHE ($1)"
	flock "${2:--x}" "$fd"
}

# shellcheck source=qemu/lib/stage.bash
. "$TOP/qemu/lib/stage.bash"
# shellcheck source=qemu/lib/kernel.bash
. "$TOP/qemu/lib/kernel.bash"
