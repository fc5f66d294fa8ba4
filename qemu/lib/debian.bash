# Sourced by qemu/deb and qemu/debian: systems of Debian 13, which DEBIAN_SUITE is for, in folders.
# shellcheck shell=bash
# shellcheck source=qemu/lib/fetch.bash
. "$TOP/qemu/lib/fetch.bash"

# make_debian FOLDER PACKAGE...: a system with these packages, unless it is there.
make_debian() {
	local root=$1 made_of="$DEBIAN_SUITE ${*:2}"
	if [[ $(cat "$root/made-of" 2>/dev/null) == "$made_of" ]]; then return; fi
	stage "making a Debian 13 with ${*:2}" "$LOGS/${root##*/}.log" 400 install_debian "$@"
	printf '%s\n' "$made_of" >"$root/made-of"
}

install_debian() { # FOLDER PACKAGE...
	rm -rf --one-file-system "$1"
	debootstrap --variant=minbase --include=ca-certificates trixie "$1" "$(mirror)"
	echo "deb $(mirror) $DEBIAN_SUITE main" >"$1/etc/apt/sources.list.d/$DEBIAN_SUITE.list"
	in_debian "$1" apt-get -q update
	in_debian "$1" apt-get -q -y install --no-install-recommends "${@:2}"
}

# in_debian FOLDER COMMAND...: runs COMMAND in the system, which sees /proc and /dev, and the
# folders in SEEN where they are. The mounts are gone when it ends, however it ends.
in_debian() {
	# shellcheck disable=SC2016 # for the inner shell
	unshare --mount --propagation private sh -euc '
		root=$1 seen=$2
		shift 2
		for folder in /proc /dev $seen; do
			mkdir -p "$root$folder"
			mount --rbind "$folder" "$root$folder"
		done
		exec chroot "$root" "$@"' - "$1" "${SEEN:-}" \
		env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "${@:2}"
}
