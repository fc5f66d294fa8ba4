# Sourced by ktest/checks: the checks of this repository, but for the series.
# shellcheck shell=bash

tracked() { git ls-files -- "$@"; }

# run_by INTERPRETER: the scripts whose first line says that it runs them.
run_by() {
	local f
	tracked qemu ktest rust/nextid-tool .ci | while read -r f; do
		if head -n1 "$f" | grep -q "^#!.*$1\$"; then printf '%s\n' "$f"; fi
	done
}

shell_scripts() { tracked '*.bash' qemu/versions && run_by sh; }
python_scripts() { tracked '*.py' && run_by python3; }

check_shellcheck() { shell_scripts | xargs shellcheck -x; }
check_yamllint() { tracked '*.yml' '*.yaml' | xargs --no-run-if-empty yamllint --strict; }
# groff tells of what is wrong, and succeeds all the same.
check_man() { ! tracked '*.[1-8]' | xargs groff -ww -K utf8 -man -Tutf8 2>&1 >/dev/null | grep .; }
check_links() { tracked '*.md' | xargs ktest/links; }
# Documents, and comments, but for tables and what is shown as a program prints it; and Python, for
# which no formatter is run.
check_columns() {
	local f
	! {
		tracked '*.md' | while read -r f; do
			# shellcheck disable=SC2016
			sed '/^ *```/,/^ *```/s/.*//' "$f" | grep -nP '^(?!\||    |<!--).{101,}' | sed "s|^|$f:|"
		done
		{ shell_scripts && tracked '*.rs' Makefile kernel-config ktest/mutations; } |
			xargs grep -nP '^(?=\s*(//|#(?!!?\[))).{101,}'
		{ python_scripts && tracked '*.c'; } | xargs grep -nP '^.{101,}'
		true # grep fails where it finds nothing
	} | grep .
}
check_mutants() { ktest/mutate "$TREE"; }
check_circles() { ktest/circles rust/*/src rust/core-tests/kernel/src; }
check_cargo-fmt() {
	local workspace
	for workspace in rust rust/fuzz; do
		cargo fmt --check --all --manifest-path $workspace/Cargo.toml -- --color never || return
	done
}
check_cargo-clippy() {
	cargo clippy --quiet --workspace --all-targets --manifest-path rust/Cargo.toml -- -D warnings
}
check_cargo-doc() {
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps --workspace --manifest-path rust/Cargo.toml
}

# That the version of the library says what has changed since the one before.
check_cargo-semver-checks() {
	local changed
	if ! at_least "$(version_of rustc)" "$CARGO_SEMVER_CHECKS_RUSTC_MIN"; then
		echo "takes rustc $CARGO_SEMVER_CHECKS_RUSTC_MIN, and this is $(version_of rustc)"
		return "$SKIPPED"
	fi
	changed=$(git log -1 --format=%H -G'^version = ' -- rust/nextid/Cargo.toml)
	if ! git rev-parse --quiet --verify "$changed^" >/dev/null; then
		echo "takes the history of rust/nextid/Cargo.toml: git fetch --unshallow"
		return "$SKIPPED"
	fi
	"$TOOLS/bin/cargo-semver-checks" semver-checks --package nextid --manifest-path rust/Cargo.toml \
		--baseline-rev "$changed^"
}

# What a registry would take of the library: its manifest, and the files that it names.
check_cargo-package() { cargo package --quiet --no-verify --allow-dirty --package nextid --manifest-path rust/Cargo.toml; }
