# Sourced by ktest/checks: the checks of the series, in the work tree. `patches` are its patches,
# `touched` the files that they touch, `added` those that they add.
# shellcheck shell=bash disable=SC2154
selftests=tools/testing/selftests/nextid

# What a file was before the series: quilt keeps it with the first patch that touches it.
first_backup() {
	local p
	for p in $(applied); do
		if [[ -e $TREE/.pc/$p/$1 ]]; then
			printf '%s\n' "$TREE/.pc/$p/$1"
			return
		fi
	done
}

# Each line that the series adds, as compilers name it: "file:number:".
added_lines() {
	local f original
	for f in "${touched[@]}"; do
		original=$(first_backup "$f")
		diff --old-line-format='' --unchanged-line-format='' --new-line-format="$f:%dn:"$'\n' \
			"$original" "$TREE/$f" || true
	done
}

# none_of_ours [GREP-OPTION...]: copies what tools say of lines that the series adds, and fails if
# there is any.
none_of_ours() {
	local status=0
	grep -F "$@" -f <(added_lines) || status=$?
	((status == 1))
}

# FILE_PATH_CHANGES asks whether MAINTAINERS is to be changed: check_maintainers knows.
check_checkpatch() {
	in_tree scripts/checkpatch.pl --strict --no-summary --show-types --ignore FILE_PATH_CHANGES "patches/$1"
}

check_rustfmtcheck() { TERM=dumb PATH=$KERNEL_PATH in_tree make -s rustfmtcheck; }

# Each file that the series adds belongs to the entry of MAINTAINERS-snippet, and that is the one in
# the tree.
check_maintainers() {
	local name f wrong=''
	name=$(head -n1 MAINTAINERS-snippet)
	in_tree sed -n "/^$name\$/,/^\$/p" MAINTAINERS | sed '/^$/d' |
		diff -u --label MAINTAINERS --label MAINTAINERS-snippet - MAINTAINERS-snippet || wrong=1
	for f in "${added[@]}"; do
		if ! in_tree scripts/get_maintainer.pl --no-git --no-git-fallback --sections --no-rolestats -f "$f" |
			grep -xF "$name" >/dev/null; then
			wrong=1
			printf '%s: not in the entry %s of MAINTAINERS\n' "$f" "$name"
		fi
	done
	[[ -z $wrong ]]
}

# The folder of a release that differs has each patch of the series, and others that only that
# release needs.
check_releases() {
	local folder p wrong=''
	for folder in patches/[0-9]*/; do
		diff -u --label patches/series --label "${folder}series" <(series patches/series) \
			<(series "${folder}series" | grep -Fxf <(series patches/series)) || wrong=1
		for p in $(series "${folder}series"); do
			if [[ ! -r $folder$p ]]; then
				wrong=1
				printf '%s: cannot be read\n' "$folder$p"
			fi
		done
		if ! series "${folder}series" | sort -C; then
			wrong=1
			printf '%s: not by name, as those who use no quilt apply them\n' "${folder}series"
		fi
	done
	[[ -z $wrong ]]
}

check_kernel-doc() {
	local sources
	mapfile -t sources < <(printf '%s\n' "${touched[@]}" | grep '\.[ch]$')
	in_tree scripts/kernel-doc -none -Wall "${sources[@]}" 2>&1 |
		sed 's/^[A-Z][a-z]*: \([^ ]*:[0-9]*\) /\1: /' | sort -u | none_of_ours
}

# Each rule has kselftests that are named after it.
check_rules() {
	local rule wrong=''
	while read -r rule; do
		if ! in_tree grep -rqE "\b${rule}_" $selftests; then
			wrong=1
			printf 'Documentation/rules.md has %s, after which no kselftest is named\n' "$rule"
		fi
	done < <(sed -n 's/^| \([A-Z][0-9]\) |.*/\1/p' "$TOP/Documentation/rules.md")
	[[ ! $wrong ]]
}

# The options that the tests ask for exist, and the programs that their Makefile builds are ignored
# by git.
check_kselftest-config() {
	local option program wrong=''
	for option in $(in_tree sed -n 's/^CONFIG_\(.*\)=.*/\1/p' $selftests/config kernel/nextid/.kunitconfig | sort -u); do
		if ! in_tree grep -rqE --include='Kconfig*' "^(menu)?config $option\$" .; then
			wrong=1
			printf 'no Kconfig has %s\n' "$option"
		fi
	done
	for program in $(in_tree sed -n ':a; /\\$/ { N; s/\\\n//; ba }; s/^TEST_GEN_.*=//p' $selftests/Makefile); do
		if ! in_tree grep -qx "/\?$program" $selftests/.gitignore; then
			wrong=1
			printf '.gitignore lacks %s\n' "$program"
		fi
	done
	[[ -z $wrong ]]
}

# Clippy, W=1 and sparse, on the files that the series touches.
check_kernel-build() {
	local log=$LOGS/build-$TREE_NAME-vng-checks.log objects
	mapfile -t objects < <(printf '%s\n' "${touched[@]}" | sed -n '/^\(tools\|rust\)\//d; s/\.c$/.o/p'; echo kernel/nextid.o)
	rm -f "${objects[@]/#/$CACHE/build/$TREE_NAME-vng-checks/}"
	"$TOP/qemu/build" --config checks CLIPPY=1 W=1 C=1 "${objects[@]}" || return
	none_of_ours -B2 -A8 "$log"
}

# rustdoc, by the tree's own target; and for kernel/nextid.rs, a crate of its own of which that
# target does not know, as kbuild calls the compiler for it.
check_rustdoc() {
	local folder=$CACHE/build/$TREE_NAME-vng-checks command
	"$TOP/qemu/build" --config checks rustdoc kernel/nextid.o || return
	none_of_ours -B2 -A8 "$LOGS/build-$TREE_NAME-vng-checks.log" || return
	command=$(sed -n '1s/.* \(clippy-driver\|rustc\) --edition/rustdoc --edition/
		1s/ ; .*//; 1s/ --\(emit\|crate-type\|out-dir\|remap-path-scope\)[= ][^ ]*//gp' "$folder/kernel/.nextid.o.cmd")
	(cd "$folder" && PATH=$KERNEL_PATH OBJTREE=$folder RUST_MODFILE=kernel/nextid RUSTC_BOOTSTRAP=1 bash -c "$command \
		--document-private-items -A rustdoc::private_intra_doc_links -D warnings --output Documentation/output/rust/nextid")
}

# The pages that the series adds or touches, without the rest of the documentation, for links to
# which Sphinx warns.
check_htmldocs() {
	local pages
	pages=$(printf '%s\n' "${touched[@]}" admin-guide/abi-testing{,-files}.rst | sed -n 's|^Documentation/||; /\.rst$/p' | paste -sd,)
	"$TOP/qemu/toolchain" sphinx
	in_tree make -s O="$CACHE/build/$TREE_NAME-docs" PYTHON3="$TOOLS/sphinx/bin/python3" SPHINXBUILD="$TOOLS/sphinx/bin/sphinx-build" \
		SPHINXOPTS="-D include_patterns=$pages -D exclude_patterns=netlink -D master_doc=admin-guide/next_id" htmldocs \
		>"$LOGS/htmldocs.log" 2>&1 || {
		tail -n 20 "$LOGS/htmldocs.log"
		return 1
	}
	none_of_ours -e next_id <(grep -E 'WARNING|ERROR|CRITICAL' "$LOGS/htmldocs.log")
}
