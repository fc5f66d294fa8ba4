# Sourced by common.bash: which kernel is meant, and how kbuild is called for it. COMPILER=gcc builds its C with gcc.
# shellcheck shell=bash disable=SC2034

# The distribution's rustc comes before any rustup toolchain: the kernel needs the library source that belongs to it.
KERNEL_PATH=$TOOLS/bin:/usr/bin:/bin:/usr/sbin:/sbin:$PATH

# How clang makes a program for the arm64 guest, which has no libraries.
ARM64_PROGRAM=(--target=aarch64-linux-gnu -static -fuse-ld=lld)

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

# parse_kernel_options [--config NAME]... [--backend vng|uml|arm64] REST...: which kernel is meant.
parse_kernel_options() {
	BACKEND=vng CONFIGS=() COMPILER=${COMPILER:-clang}
	[[ $COMPILER == clang || $COMPILER == gcc ]] || die "COMPILER=$COMPILER: there are clang and gcc"
	while (($#)); do
		case $1 in
		--config)
			[[ -e $TOP/kernel-config/${2:-}.config ]] || die "--config ${2:-}: there is no kernel-config/${2:-}.config" \
				"There are: $(cd "$TOP/kernel-config" && basename -s .config -- *.config | tr '\n' ' ')"
			CONFIGS+=("$2")
			;;
		--backend)
			[[ ${2:-} =~ ^(vng|uml|arm64)$ ]] || die "--backend ${2:-}: there are vng, uml and arm64"
			BACKEND=$2
			;;
		*) break ;;
		esac
		shift 2
	done
	REST=("$@")
	KERNEL_NAME=$(IFS=-; printf %s "$TREE_NAME-$BACKEND${CONFIGS[*]:+-${CONFIGS[*]}}")
	[[ $COMPILER == clang ]] || KERNEL_NAME+=-$COMPILER
	OBJ=$CACHE/build/$KERNEL_NAME
	case $BACKEND in
	vng) ARCH=x86_64 IMAGE=$OBJ/arch/x86/boot/bzImage ;;
	uml) ARCH=um IMAGE=$OBJ/linux ;;
	arm64) ARCH=arm64 IMAGE=$OBJ/arch/arm64/boot/Image ;;
	esac
}

# What kbuild needs in the environment, for the kernel of parse_kernel_options.
kernel_environment() {
	local llvm
	llvm=$(llvm_suffix)
	export LIBCLANG_PATH=/usr/lib/llvm-${llvm#-}/lib PATH=$KERNEL_PATH ARCH
	export KBUILD_BUILD_TIMESTAMP='' KBUILD_BUILD_USER=nextid KBUILD_BUILD_HOST=nextid KBUILD_BUILD_VERSION=1
	if [[ $COMPILER == clang ]]; then export LLVM=$llvm KERNEL_CC=clang$llvm; else unset LLVM && export KERNEL_CC=gcc; fi
	# Without PCI, asm-generic/io.h has I/O ports at address 0, of which clang warns.
	[[ $BACKEND != uml || $COMPILER != clang ]] || export KCFLAGS=-Wno-null-pointer-arithmetic
}

kbuild() {
	make -C "$TREE" O="$OBJ" -j"$(nproc)" CC="ccache $KERNEL_CC" "$@"
}
