# Sourced by common.bash: which kernel is meant, where its tree and its builds are, and how kbuild
# is called for it. KVER is its version, COMPILER=gcc builds its C with gcc.
# shellcheck shell=bash disable=SC2034

# The distribution's rustc comes before any rustup toolchain: the kernel needs the library source
# that belongs to it.
KERNEL_PATH=$TOOLS/bin:/usr/bin:/bin:/usr/sbin:/sbin:$PATH

# How clang makes a program for the arm64 guest, which has no libraries.
ARM64_PROGRAM=(--target=aarch64-linux-gnu -static -fuse-ld=lld)

BACKEND='' CONFIGS=() # of parse_kernel_options

# Sets KVER and what depends on it. qemu/source may let another version stand in for KVER.
set_version() {
	KVER=${KVER:-$KERNEL}
	while [[ -e $CACHE/src/instead-of-$KVER ]]; do KVER=$(<"$CACHE/src/instead-of-$KVER"); done
	TREE_NAME=$KVER${VARIANT:+-$VARIANT} # VARIANT: a tree beside the usual one, for other PATCHES
	TREE=$CACHE/linux-$TREE_NAME
	STATE=$TREE.state
	if [[ $BACKEND ]]; then name_kernel; fi
}

# Sets what depends on the version, on BACKEND, on CONFIGS and on COMPILER.
name_kernel() {
	KERNEL_NAME=$(IFS=-; printf %s "$TREE_NAME-$BACKEND${CONFIGS[*]:+-${CONFIGS[*]}}")
	if [[ $COMPILER != clang ]]; then KERNEL_NAME+=-$COMPILER; fi
	OBJ=$CACHE/build/$KERNEL_NAME
	case $BACKEND in
	vng) ARCH=x86_64 IMAGE=$OBJ/arch/x86/boot/bzImage ;;
	uml) ARCH=um IMAGE=$OBJ/linux ;;
	arm64) ARCH=arm64 IMAGE=$OBJ/arch/arm64/boot/Image ;;
	esac
}

# Brings the work tree in step with patches/.
update_tree() {
	"$TOP/qemu/tree"
	set_version
}

# parse_kernel_options [--config NAME]... [--backend vng|uml|arm64] REST...: which kernel is meant.
parse_kernel_options() {
	BACKEND=vng CONFIGS=() COMPILER=${COMPILER:-clang}
	if [[ $COMPILER != clang && $COMPILER != gcc ]]; then
		die "COMPILER=$COMPILER: there are clang and gcc"
	fi
	while (($#)); do
		case $1 in
		--config)
			if [[ ! -e $TOP/kernel-config/${2:-}.config ]]; then
				die "--config ${2:-}: there is no kernel-config/${2:-}.config" \
					"There are: $(cd "$TOP/kernel-config" && basename -s .config -- *.config | tr '\n' ' ')"
			fi
			CONFIGS+=("$2")
			;;
		--backend)
			if [[ ! ${2:-} =~ ^(vng|uml|arm64)$ ]]; then
				die "--backend ${2:-}: there are vng, uml and arm64"
			fi
			BACKEND=$2
			;;
		*) break ;;
		esac
		shift 2
	done
	REST=("$@")
	name_kernel
}

# need_image [OPTION]...: ends here if the kernel was not built yet, with these options of
# qemu/build.
need_image() {
	if [[ ! -e $IMAGE ]]; then
		die "there is no kernel $KERNEL_NAME yet" \
			"Build it: KVER=$KVER COMPILER=$COMPILER ${VARIANT:+$TOP/qemu/$VARIANT }$TOP/qemu/build $*"
	fi
}

# The suffix of the newest complete LLVM that is installed: "-22"; nothing if there is none.
llvm_suffix() {
	local clang v
	for clang in $(printf '%s\n' /usr/bin/clang-[0-9]* | sort -rV); do
		v=${clang##*-}
		if [[ ! $v =~ ^[0-9]+$ ]] || ((v < LLVM_MIN)); then return; fi
		if [[ -x $clang && -x /usr/bin/ld.lld-$v && -x /usr/bin/llvm-nm-$v ]]; then
			printf '%s\n' "-$v"
			return
		fi
	done
}

# What kbuild needs in the environment, for the kernel of parse_kernel_options.
kernel_environment() {
	local llvm
	llvm=$(llvm_suffix)
	export LIBCLANG_PATH=/usr/lib/llvm-${llvm#-}/lib PATH=$KERNEL_PATH ARCH
	export KBUILD_BUILD_TIMESTAMP='' KBUILD_BUILD_USER=nextid KBUILD_BUILD_HOST=nextid
	export KBUILD_BUILD_VERSION=1
	if [[ $COMPILER == clang ]]; then
		export LLVM=$llvm KERNEL_CC=clang$llvm
	else
		unset LLVM
		export KERNEL_CC=gcc
	fi
	# Without PCI, asm-generic/io.h has I/O ports at address 0, of which clang warns.
	if [[ $BACKEND == uml && $COMPILER == clang ]]; then
		export KCFLAGS=-Wno-null-pointer-arithmetic
	fi
}

kbuild() {
	make -C "$TREE" O="$OBJ" -j"$(nproc)" CC="ccache $KERNEL_CC" "$@"
}

set_version
