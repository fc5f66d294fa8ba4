# Sourced by common.bash: which kernel is meant, and how kbuild is called for it.
# shellcheck shell=bash disable=SC2034

# The distribution's rustc comes before any rustup toolchain: the kernel needs the library source that belongs to it.
KERNEL_PATH=$TOOLS/bin:/usr/bin:/bin:/usr/sbin:/sbin:$PATH

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
	KERNEL_NAME=$(IFS=-; printf %s "$TREE_NAME-$BACKEND${CONFIGS[*]:+-${CONFIGS[*]}}")
	OBJ=$CACHE/build/$KERNEL_NAME
	if [[ $BACKEND == uml ]]; then IMAGE=$OBJ/linux; else IMAGE=$OBJ/arch/x86/boot/bzImage; fi
}

# What kbuild needs in the environment, for the kernel of parse_kernel_options.
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
