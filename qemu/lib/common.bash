# Sourced by the scripts of qemu/ and ktest/: where things are, and how the scripts speak. A script
# defines usage(), which prints how it is called, before it sources this.
# shellcheck shell=bash disable=SC2034
set -euo pipefail
export LC_ALL=C.UTF-8 # what apt and others print is read

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=qemu/versions
. "$TOP/qemu/versions"

say() { printf '%s\n' "$*" >&2; }

# die WHAT [WHAT-TO-DO]
die() {
	say "error: $1"
	if [[ ${2:-} ]]; then say "       $2"; fi
	exit 1
}

# usage_error WHAT: what is wrong with the arguments, and what they must be.
usage_error() {
	say "error: $1"
	say
	usage >&2
	exit 2
}

# check_numbers NAME...: these variables are numbers, where they are set.
check_numbers() {
	local name
	for name; do
		if [[ ! ${!name:-1} =~ ^[1-9][0-9]*$ ]]; then
			die "$name=${!name} is no number" "Give one from 1 up, in decimal."
		fi
	done
}

# no_arguments "$@": for a script that takes none, or no more.
no_arguments() {
	if (($#)); then usage_error "$1 is not an option"; fi
}

if [[ ${1:-} == --help && $(type -t usage) == function ]]; then
	usage
	exit
fi

if [[ ${XDG_CACHE_HOME:-} != /* ]]; then # a relative one is to be ignored
	XDG_CACHE_HOME=${HOME:?is not set: set HOME or XDG_CACHE_HOME}/.cache
fi
CACHE=$XDG_CACHE_HOME/nextid
TOOLS=$CACHE/tools
LOGS=$CACHE/log
export CCACHE_DIR=${CCACHE_DIR:-$CACHE/ccache}
# One for each checkout: cargo takes for fresh what another one, with files of another age, has
# built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/cargo/target${TOP//\//-}}
# What runs a command in the guest, whose output is no terminal, as it would run on this one.
IN_COLOUR=(env)
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then IN_COLOUR+=(CLICOLOR_FORCE=1); fi

# kbuild, overlays and QEMU separate words by these characters. The guest has folders of its own in
# place of the others.
for folder in "$TOP" "$CACHE" "$(realpath -m "$TOP")" "$(realpath -m "$CACHE")"; do
	if [[ $folder == *[[:space:]:,]* ]]; then
		die "$folder: no white space, ':' or ',' can be in this path" \
			"Move the checkout, or name another folder for the cache: XDG_CACHE_HOME=FOLDER"
	fi
	if [[ $folder/ =~ ^/(dev|proc|run|sys|var/cache|var/log|var/tmp)/ ]]; then
		die "$folder: the guest does not see this folder" \
			"Move the checkout, or name another folder for the cache: XDG_CACHE_HOME=FOLDER"
	fi
done
mkdir -p "$CACHE/src" "$CACHE/build" "$CACHE/run" "$TOOLS/bin" "$LOGS"

# at_least VERSION MINIMUM
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1) == "$2" ]]; }

# version_of PROGRAM: as rustc and cargo tell it; nothing if it cannot be run.
version_of() { "$1" --version 2>/dev/null | cut -d' ' -f2; }

# lock NAME [-s|-u]: waits for the lock on a part of the cache, alone or (-s) shared. The script
# holds it until it ends, or gives it back (-u).
declare -A LOCKS
lock() {
	local fd=${LOCKS[$1]:-}
	if [[ -z $fd ]]; then
		exec {fd}>"$CACHE/$1.lock"
		LOCKS[$1]=$fd
	fi
	if ! flock -n "${2:--x}" "$fd"; then
		say "waiting for another run that uses $CACHE ($1)"
		flock "${2:--x}" "$fd"
	fi
}

# shellcheck source=qemu/lib/stage.bash
. "$TOP/qemu/lib/stage.bash"
# shellcheck source=qemu/lib/kernel.bash
. "$TOP/qemu/lib/kernel.bash"
