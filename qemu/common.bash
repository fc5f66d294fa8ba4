# Sourced by every script here: where things are, how they speak, how long work is shown.
# shellcheck shell=bash disable=SC2034
set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=qemu/versions
. "$TOP/qemu/versions"

CACHE=${XDG_CACHE_HOME:-${HOME:?is not set: set HOME or XDG_CACHE_HOME}/.cache}/nextid
TOOLS=$CACHE/tools
LOGS=$CACHE/log
KVER=${KVER:-$KERNEL}
[[ ! -e $CACHE/src/instead-of-$KVER ]] || KVER=$(<"$CACHE/src/instead-of-$KVER")
TREE_NAME=$KVER${VARIANT:+-$VARIANT} # VARIANT: a tree beside the usual one, for other PATCHES
TREE=$CACHE/linux-$TREE_NAME
export CCACHE_DIR=${CCACHE_DIR:-$CACHE/ccache}
mkdir -p "$CACHE/src" "$CACHE/build" "$CACHE/run" "$TOOLS/bin" "$LOGS"

say() { printf '%s\n' "$*" >&2; }

# die WHAT [WHAT-TO-DO]
die() {
	say "error: $1"
	[[ -z ${2:-} ]] || say "       $2"
	exit 1
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

minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# Draws stage $1 at step $2 of $3 (0: not known), $4 seconds after its start.
draw_stage() {
	local text bar percent left
	text="$1: $2 steps, $(minutes "$4")"
	if (($3 > 0 && $2 * 50 > $3)); then
		percent=$(($2 * 100 / $3)) left=$(($4 * ($3 - $2) / $2))
		((percent < 99)) || percent=99
		((left > 0)) || left=0
		printf -v bar '%*s' $((percent / 4)) ''
		printf -v bar '%-25s' "${bar// /#}"
		text="$1 [${bar// /.}] $percent %, about $(minutes $left) left"
	fi
	if [[ -t 2 ]]; then printf '\r\e[K%s' "$text" >&2; else say "  $text"; fi
}

# How many steps a log has: a line of kbuild or cargo ("  CC  file.o"; Rust's take longest), of KTAP, of tar's checkpoints.
count_steps() {
	awk '/^ +RUSTC [LP]/ { n += 20 } /^ +[A-Z]|^ *(not )?ok |^(Unpacking|Setting up) |^test .*\.\.\. |^tar: / { n++ } END { print n + 0 }' "$1"
}

# stage NAME LOG STEPS COMMAND...: runs COMMAND, all its output in LOG, and shows how far it is. STEPS is how many
# steps are expected, 0 if that is not known.
stage() {
	local name=$1 log=$2 steps=$3 start=$SECONDS shown=$SECONDS every=30 pid status=0
	shift 3
	[[ ! -t 2 ]] || every=1
	say "==> $name (log: $log)"
	mkdir -p "$(dirname "$log")"
	# In a process group of its own, so that all of it can be ended.
	set -m
	"$@" </dev/null >"$log" 2>&1 &
	pid=$!
	set +m
	# shellcheck disable=SC2064 # the values of now
	trap "kill -- -$pid 2>/dev/null || true; say; die '$name: interrupted' 'Run the same command again: it goes on from here.'" INT TERM
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		((SECONDS - shown >= every)) || continue
		shown=$SECONDS
		draw_stage "$name" "$(count_steps "$log")" "$steps" $((SECONDS - start)) || true
	done
	wait "$pid" || status=$?
	trap - INT TERM
	[[ ! -t 2 ]] || printf '\r\e[K' >&2
	if ((status)); then
		say "--- from $log:"
		grep -nE '\*\*\* \[|[Ee]rror\b|[Ww]arning:|No space left' "$log" | tail -n 15 >&2 || tail -n 15 "$log" >&2
		explain_failure "$name" "$log" $status
	fi
	say "    done in $(minutes $((SECONDS - start)))"
}

# check_space WHAT [LOG]: ends here if it is for want of space that WHAT failed. LOG may be cut short by the same want.
check_space() {
	if (($(df --output=avail -k "$CACHE" | tail -n1) < 65536)) || grep -qs 'No space left on device' "${2:-}"; then
		die "$1: the disk is full" "Free some space (df -h $CACHE; make distclean empties the cache) and run the same command again."
	fi
}

# explain_failure NAME LOG STATUS
explain_failure() {
	check_space "$1" "$2"
	if grep -qE 'Could not resolve|Temporary failure resolving|Failed to fetch|Connection (refused|timed out)|Could not fetch URL|download of .* failed' "$2"; then
		die "$1: the network cannot be reached" "See $2; connect, and run the same command again."
	fi
	die "$1 failed with status $3" "All of its output is in $2."
}

# The distribution's rustc comes before any rustup toolchain: the kernel needs the library source that belongs to it.
KERNEL_PATH=/usr/bin:/bin:/usr/sbin:/sbin:$TOOLS/bin:$PATH

# The suffix of the newest complete LLVM that is installed: "-22"; nothing if there is none.
llvm_suffix() {
	local clang v
	for clang in $(printf '%s\n' /usr/bin/clang-[0-9]* | sort -rV); do
		v=${clang##*-}
		((v >= LLVM_MIN)) 2>/dev/null || return 0
		[[ -x $clang && -x /usr/bin/ld.lld-$v && -x /usr/bin/llvm-nm-$v ]] || continue
		printf '%s\n' "-$v"
		return
	done
}

# parse_kernel_options [--config NAME]... [--backend vng|uml] REST...: which kernel is meant.
parse_kernel_options() {
	BACKEND=vng CONFIGS=()
	while (($#)); do
		case $1 in
		--config)
			[[ -e $TOP/kernel-config/${2:-}.config ]] || die "--config ${2:-}: there is no kernel-config/${2:-}.config" \
				"There are: $(cd "$TOP/kernel-config" && basename -s .config -- *.config | tr '\n' ' ')"
			CONFIGS+=("$2")
			;;
		--backend)
			[[ ${2:-} == vng || ${2:-} == uml ]] || die "--backend ${2:-}: there are vng and uml"
			BACKEND=$2
			;;
		*) break ;;
		esac
		shift 2
	done
	REST=("$@")
	KERNEL_NAME=$(IFS=-; printf "%s" "$TREE_NAME-$BACKEND${CONFIGS[*]:+-${CONFIGS[*]}}")
	OBJ=$CACHE/build/$KERNEL_NAME
	if [[ $BACKEND == uml ]]; then IMAGE=$OBJ/linux; else IMAGE=$OBJ/arch/x86/boot/bzImage; fi
}

# What kbuild needs in the environment, for the kernel of parse_kernel_options. The distribution's rustc comes before any
# rustup toolchain: the kernel needs the library source that belongs to it.
kernel_environment() {
	LLVM=$(llvm_suffix)
	export LLVM LIBCLANG_PATH=/usr/lib/llvm-${LLVM#-}/lib PATH=$KERNEL_PATH
	export KBUILD_BUILD_TIMESTAMP='' KBUILD_BUILD_USER=nextid KBUILD_BUILD_HOST=nextid KBUILD_BUILD_VERSION=1
	ARCH=x86_64
	if [[ $BACKEND == uml ]]; then
		ARCH=um
		# Without PCI, asm-generic/io.h has I/O ports at address 0, of which clang warns.
		export KCFLAGS=-Wno-null-pointer-arithmetic
	fi
	export ARCH
}

kbuild() {
	make -C "$TREE" O="$OBJ" -j"$(nproc)" CC="ccache clang$LLVM" "$@"
}
