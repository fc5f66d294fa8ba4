# Sourced by qemu/tree and qemu/refresh: the quilt state of the work tree. What the tree held when
# it was last in step with the checkout is kept beside it: base/ (the series and its patches) and
# sums (the content of each patched file).
# shellcheck shell=bash disable=SC2034

# A release to which the series does not apply as it is has a folder of its own: the patches that
# differ there, and links to the others. Their context may differ as well, so fuzz is allowed.
FUZZ=0
if [[ -d $TOP/patches/${KVER%.*} ]]; then
	PATCHES=${PATCHES:-$TOP/patches/${KVER%.*}}
	FUZZ=2
fi
PATCHES=${PATCHES:-$TOP/patches}

in_tree() { (cd "$TREE" && "$@"); }
q() { in_tree quilt --quiltrc - "$@"; }
series() { sed -n 's/^\([^#[:space:]]\+\).*/\1/p' "$1"; }
applied() { cat "$TREE/.pc/applied-patches" 2>/dev/null || true; }

# The files that a patch touches, by the backups that quilt keeps of them.
touched() { (cd "$TREE/.pc/$1" && find . -type f ! -name .timestamp -printf '%P\n'); }

hash_of() { if [[ -s $1 ]]; then sha256sum <"$1" | cut -d' ' -f1; else echo empty; fi; }

# "owner file hash" for each file under an applied patch: as the source has it (owner "-"), and
# after each patch.
contents() {
	local p f next
	local -A last=()
	for p in $(applied); do
		while read -r f; do
			next=$(hash_of "$TREE/.pc/$p/$f")
			printf '%s %s %s\n' "${last[$f]:--}" "$f" "$next"
			last[$f]=$p
		done < <(touched "$p")
	done
	for f in "${!last[@]}"; do printf '%s %s %s\n' "${last[$f]}" "$f" "$(hash_of "$TREE/$f")"; done
}

# save_state: the tree is in step with the patches that are applied.
save_state() {
	contents >"$STATE/sums.new"
	if [[ -e $STATE/sums ]]; then
		awk 'NR == FNR { new[$1, $2]; print; next } !(($1, $2) in new)' \
			"$STATE/sums.new" "$STATE/sums" >"$STATE/sums.all"
		mv -f "$STATE/sums.all" "$STATE/sums.new"
	fi
	mv "$STATE/sums.new" "$STATE/sums"
	touch "$STATE/stamp"
	rm -f "$STATE/busy"
}

# "file owner" for each file that was edited since. The owner is the topmost applied patch that
# touches the file; "-" if none does.
edited() {
	local p f
	local -A owner=() want=()
	for p in $(applied); do
		while read -r f; do owner[$f]=$p; done < <(touched "$p")
	done
	while read -r p f hash; do want[$p $f]=$hash; done <"$STATE/sums"
	while read -r f; do
		if [[ $(hash_of "$TREE/$f") != "${want[${owner[$f]:--} $f]:-}" ]]; then
			printf '%s %s\n' "$f" "${owner[$f]:--}"
		fi
	done < <({ printf '%s\n' "${!owner[@]}"; newer_files; } | sort -u | grep .)
}

# What was written since the state was saved, without quilt's own files and what editors, tags and
# test runs leave.
newer_files() {
	in_tree find . \( -path ./patches -o -name '.*' ! -name . \) -prune -o -type f -newer "$STATE/stamp" \
		! \( -name '*~' -o -name '*.orig' -o -name '*.rej' -o -name '*.o' -o -name '*.pyc' -o -name tags -o -name TAGS \
		-o -name 'cscope.*' -o -name compile_commands.json -o -name rust-project.json \) -printf '%P\n'
}

# Patches that quilt refreshed in the tree, and that the checkout does not have.
unwritten() {
	local p
	for p in $(series "$TREE/patches/series"); do
		if ! cmp -s "$TREE/patches/$p" "$STATE/base/$p"; then printf '%s\n' "$p"; fi
	done
}
