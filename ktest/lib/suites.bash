# Sourced by ktest/run: for each suite, what has to be built before (prepare_NAME), and the tests
# (suite_NAME), which print KTAP and succeed even where tests fail.
# shellcheck shell=bash disable=SC2153
# shellcheck source=ktest/lib/ktap.bash
. "$TOP/ktest/lib/ktap.bash"
# shellcheck source=ktest/lib/judge.bash
. "$TOP/ktest/lib/judge.bash"

# host: the cargo workspace, the pure core of the kernel code among it.
prepare_host() {
	stage "building the host tests" "$LOGS/host-build.log" 0 \
		cargo test --no-run --workspace --manifest-path "$TOP/rust/Cargo.toml"
}
suite_host() {
	{ cargo test --no-fail-fast --workspace --manifest-path "$TOP/rust/Cargo.toml" 2>&1 || true; } |
		"$TOP/ktest/lib/cargo-ktap"
}

# fuzz: the fuzz targets for a minute; fuzz-long: for FUZZ_SECONDS, and what they cover.
prepare_fuzz() {
	"$TOP/qemu/toolchain" cargo-fuzz || return
	stage "building the fuzz targets" "$LOGS/fuzz-build.log" 0 "$TOP/ktest/fuzz" build
}
prepare_fuzz-long() { prepare_fuzz; }
steps_fuzz() { echo 12; }
steps_fuzz-long() { echo $((${FUZZ_SECONDS:-600} / 5)); }
suite_fuzz() { "$TOP/ktest/fuzz" 60; }
suite_fuzz-long() { "$TOP/ktest/fuzz" "${FUZZ_SECONDS:-600}" --coverage; }

# kunit-vng, kunit-uml: the KUnit suites of the series.
prepare_kunit-vng() { "$TOP/qemu/build" "${CONFIG[@]}" --backend vng; }
prepare_kunit-uml() { "$TOP/qemu/build" "${CONFIG[@]}" --backend uml; }
suite_kunit-vng() { in_guest --backend vng "$TOP/ktest/guest/kunit"; }
suite_kunit-uml() { in_guest --backend uml "$TOP/ktest/guest/kunit"; }

# kselftest: tools/testing/selftests/nextid, by kselftest's own runner.
kselftest() { printf '%s\n' "$CACHE/kselftest-$TREE_NAME${1:+-$1}"; }
install_kselftest() { # INTO MAKE-ARGUMENT...
	local config=("${CONFIG[@]}")
	"$TOP/qemu/build" "${CONFIG[@]}" || return
	# Their makefiles do not know UML, for which they are the same.
	if [[ " ${CONFIG[*]} " == *" uml "* ]]; then config=(); fi
	rm -rf "$1/nextid" # else a test that is no more would go on to run
	"$TOP/qemu/build" "${config[@]}" kselftest-install TARGETS=nextid FORCE_TARGETS=1 \
		INSTALL_PATH="$1" "${@:2}"
}
run_kselftest() { # FOLDER
	in_guest "$1/run_kselftest.sh" --override-timeout 300 | ktap_of_kselftest
}
prepare_kselftest() { install_kselftest "$(kselftest)"; }
suite_kselftest() { run_kselftest "$(kselftest)"; }

# kselftest-32: the same as 32-bit programs.
prepare_kselftest-32() {
	install_kselftest "$(kselftest 32)" BUILD="$(kselftest 32)/build" USERCFLAGS=-m32 USERLDFLAGS=-m32
}
suite_kselftest-32() { run_kselftest "$(kselftest 32)"; }

# arm64: KUnit and the kselftests, in an arm64 machine under QEMU.
prepare_arm64() {
	CONFIG+=(--backend arm64)
	install_kselftest "$(kselftest arm64)" \
		USERCFLAGS="${ARM64_PROGRAM[*]}" USERLDFLAGS="${ARM64_PROGRAM[*]}"
}
suite_arm64() { judged "$TOP/qemu/arm64" "${CONFIG[@]}" "$(kselftest arm64)" "$RESULTS/arm64.console"; }

# off: without the option, which takes --config off, there is nothing of it.
prepare_off() { "$TOP/qemu/build" "${CONFIG[@]}"; }
suite_off() {
	in_guest "$TOP/ktest/guest/off"
}

# stress: rust/stress in brief; stress-long: a million requests, unless ROUNDS says otherwise;
# faults: each allocation of a call made to fail in turn, which takes --config faults.
stress=$CARGO_TARGET_DIR/release/stress
prepare_stress() {
	"$TOP/qemu/build" "${CONFIG[@]}" && stage "building the stress" "$LOGS/stress-build.log" 0 \
		cargo build --release --manifest-path "$TOP/rust/Cargo.toml" --package stress
}
prepare_stress-long() { prepare_stress; }
prepare_faults() { prepare_stress; }
steps_stress-long() { echo $((${ROUNDS:-50} + 3)); }
suite_stress() { in_guest "$stress" rounds; }
suite_stress-long() {
	in_guest --timeout 14400 \
		"$stress" rounds --rounds "${ROUNDS:-50}" --arms 20000 --seed "${SEED:-1}"
}
suite_faults() { in_guest "$stress" faults; }

# restore: the library and the tool, which restores what the real CRIU dumps; and CRIU restores it,
# too.
build_restore() {
	cargo build --manifest-path "$TOP/rust/Cargo.toml" -p nextid-tool -p demo && restore_tests
}
restore_tests() {
	CARGO_TERM_COLOR=never cargo test --no-run --manifest-path "$TOP/rust/Cargo.toml" \
		-p nextid -p nextid-tool --test objects --test cli
}
prepare_restore() {
	"$TOP/qemu/build" "${CONFIG[@]}" && "$TOP/ktest/criu" plain &&
		stage "building the restore tools" "$LOGS/restore-build.log" 0 build_restore
}
suite_restore() {
	local tests
	mapfile -t tests < <(restore_tests 2>&1 | sed -n 's/.*Executable .*(\(.*\))$/\1/p')
	if ((${#tests[@]} != 2)); then
		ktap_begin 1
		ktap_fail "tests/objects and tests/cli are built"
		return
	fi
	in_guest --timeout 1800 "$TOP/ktest/guest/restore" "$CACHE/criu/$CRIU-plain/criu/criu" \
		"$CARGO_TARGET_DIR/debug" "${tests[@]}"
}

# criu: what CRIU with patches/criu/ does with next_id.
prepare_criu() {
	"$TOP/qemu/build" "${CONFIG[@]}" && "$TOP/ktest/criu" patched &&
		stage "building nextid" "$LOGS/nextid-build.log" 0 \
			cargo build --manifest-path "$TOP/rust/Cargo.toml" -p nextid-tool
}
suite_criu() {
	in_guest "$TOP/ktest/guest/criu" "$CACHE/criu/$CRIU-patched/criu/criu" "$CARGO_TARGET_DIR/debug/nextid"
}

# zdtm: CRIU's own tests that are about ids, or TESTS, with CRIU as it is and with patches/criu/, or
# with the one that is built in CRIU_TREE. Takes --config criu.
zdtm_tests() {
	if [[ ${TESTS:-} ]]; then xargs -n1 <<<"$TESTS"; else cat "$TOP/ktest/guest/zdtm-tests"; fi
}
zdtm_tree=$CACHE/criu/$CRIU-patched
zdtm_programs=("$CACHE/criu/$CRIU-"{plain,patched}/criu/criu)
if [[ ${CRIU_TREE:-} ]]; then
	zdtm_tree=$(realpath "$CRIU_TREE")
	zdtm_programs=("$zdtm_tree/criu/criu")
fi
prepare_zdtm() {
	local tests
	mapfile -t tests < <(zdtm_tests)
	"$TOP/qemu/build" "${CONFIG[@]}" || return
	if [[ -z ${CRIU_TREE:-} ]]; then
		"$TOP/ktest/criu" plain && "$TOP/ktest/criu" patched || return
	fi
	"$TOP/ktest/criu" tests "$zdtm_tree" "${tests[@]}"
}
suite_zdtm() {
	local tests
	mapfile -t tests < <(zdtm_tests)
	in_guest --timeout 7200 "$TOP/ktest/guest/zdtm" "$zdtm_tree" "${tests[@]}" -- "${zdtm_programs[@]}"
}

# upstream: the tree's own kselftests, on the kernel without the series and on the one with it.
# Where results differ, it may be by chance: such a program is run again, often, on both.
upstream="clone3 pidfd pid_namespace ipc proc mqueue namespaces tty"
prepare_upstream() {
	"$TOP/qemu/build" "${CONFIG[@]}" && "$TOP/qemu/baseline" "$TOP/qemu/build" "${CONFIG[@]}" &&
		"$TOP/qemu/build" "${CONFIG[@]}" kselftest-install "TARGETS=$upstream cgroup filesystems" \
			INSTALL_PATH="$CACHE/upstream-$KVER"
}
suite_upstream() {
	local selection=(--test cgroup:test_pids --test filesystems:devpts_pts)
	local again=() name died=0 trouble=0 differ=0
	ktap_begin 3
	for name in $upstream; do selection+=(--collection "$name"); done
	run_upstream 1 "${selection[@]}"
	for name in $("$TOP/ktest/upstream" --differing "$RESULTS/upstream."{baseline,patched}); do
		again+=(--test "$name")
	done
	if ((${#again[@]})); then run_upstream 20 "${again[@]}"; fi
	ktap_result $died guest
	ktap_result $trouble console
	"$TOP/ktest/upstream" "$RESULTS/upstream."{baseline,patched} | ktap_subtests || differ=1
	if ! printed_something; then differ=1; fi
	ktap_result $differ upstream
}
# run_upstream TIMES SELECTION...: sets `died` and `trouble` of suite_upstream.
run_upstream() {
	local kernel status console before
	for kernel in baseline patched; do
		status=0 console=$RESULTS/upstream.$kernel-$1.console before=()
		if [[ $kernel == baseline ]]; then before=("$TOP/qemu/baseline"); fi
		# shellcheck disable=SC2016 # for the guest
		"${before[@]}" "$TOP/qemu/guest" "${CONFIG[@]}" --timeout 3600 --console "$console" -- \
			sh -c 'times=$1; shift; for i in $(seq "$times"); do "$@"; done' sh "$1" \
			"$CACHE/upstream-$KVER/run_kselftest.sh" --override-timeout 180 "${@:2}" \
			>>"$RESULTS/upstream.$kernel" 2>&1 || status=$?
		if ((status == 124 || status == 125)); then
			died=1
			tail -n 30 "$RESULTS/upstream.$kernel" | ktap_comment
		fi
		# Trouble that the kernel has without the series is not the series'.
		if [[ $kernel == patched ]]; then
			"$TOP/ktest/lib/splats" "$console" | ktap_comment || trouble=1
		fi
	done
}

# mutate: each rule taken out of the kernel, in a copy of the tree.
prepare_mutate() {
	prepare_kselftest && prepare_stress && "$TOP/qemu/build" --backend uml &&
		stage "building the host tests" "$LOGS/host-build.log" 0 \
			cargo test --no-run --package core-tests --manifest-path "$TOP/rust/Cargo.toml"
}
steps_mutate() { echo $(($(grep -c '^[a-z]' "$TOP/ktest/mutations") + 1)); }
suite_mutate() {
	STRESS=$stress "$TOP/ktest/scratch" "$TOP/ktest/mutate" "$TREE" "$(kselftest)" "$RESULTS" "${MUTANT:-}"
}

# bench: the benchmarks in brief, to see that they work; what they measure decides nothing here.
prepare_bench() { "$TOP/qemu/build"; }
suite_bench() {
	local failed=0
	ktap_begin 1
	"$TOP/ktest/bench" --short 2>&1 | ktap_comment || failed=1
	ktap_result $failed bench
}

# bisect: each prefix of the series, in a copy of the tree.
prepare_bisect() { "$TOP/qemu/build" --config bench && "$TOP/qemu/build" --backend uml; }
# shellcheck source=qemu/lib/series.bash
steps_bisect() { echo $((5 * $(. "$TOP/qemu/lib/series.bash" && series "$PATCHES/series" | wc -l))); }
suite_bisect() { "$TOP/ktest/scratch" "$TOP/ktest/bisect"; }

# deb: the packages of the kernel, built on Debian's configuration, in a Debian that boots by them.
build_deb() { cargo build --release --manifest-path "$TOP/rust/Cargo.toml" -p nextid-tool -p demo; }
prepare_deb() {
	"$TOP/qemu/deb" && prepare_kselftest && "$TOP/ktest/criu" plain && "$TOP/ktest/criu" patched &&
		stage "building nextid and the demonstration" "$LOGS/deb-tools.log" 0 build_deb
}
suite_deb() { judged "$TOP/ktest/deb" "$RESULTS/deb.console" "$(kselftest)"; }

# deb-tool: the package of nextid, installed and tried in fresh chroots: of this release of Debian,
# and of the next one, whose C library is newer.
prepare_deb-tool() { "$TOP/rust/nextid-tool/debian/build"; }
suite_deb-tool() {
	local releases=(trixie)
	if [[ $(. /etc/os-release && echo "${VERSION_CODENAME:-}") == bookworm ]]; then
		releases+=(bookworm)
	fi
	"$TOP/ktest/deb-tool" "$TOP"/results/deb/nextid_*.deb "${releases[@]}"
}

# checks, checks-all: static checks; the first without those that compile.
prepare_checks() { :; }
prepare_checks-all() {
	if at_least "$(version_of rustc)" "$CARGO_SEMVER_CHECKS_RUSTC_MIN"; then
		"$TOP/qemu/toolchain" cargo-semver-checks
	fi
}
suite_checks() { "$TOP/ktest/checks" --quick; }
suite_checks-all() { "$TOP/ktest/checks"; }
