# Sourced by what downloads: files that are checked before they are used.
# shellcheck shell=bash

# fetch URL FILE: goes on where an interrupted download stopped; FILE appears only once it is whole.
fetch() {
	local meter=(--no-progress-meter) proxy='' status=0
	if [[ -t 2 ]]; then meter=(); fi
	say "    fetching $1"
	eval "$(apt-config shell proxy Acquire::http::Proxy 2>/dev/null || true)"
	env ${proxy:+http_proxy="$proxy"} curl "${meter[@]}" --fail --location --connect-timeout 15 --retry 3 --retry-all-errors \
		--speed-limit 1000 --speed-time 60 --continue-at - --output "$2.part" "$1" >&2 || status=$?
	# What the server refuses to go on with (HTTP errors 22, ranges 33 and 36) would be refused for
	# ever.
	case $status in
	0) mv "$2.part" "$2" ;;
	22 | 33 | 36) rm -f "$2.part" ;;
	esac
	return $status
}

# verify FILE SHA256: removes what is corrupt.
verify() {
	local got
	got=$(sha256sum "$1" | cut -d' ' -f1)
	if [[ $got == "$2" ]]; then return; fi
	rm -f "$1"
	say "    refused and removed: the SHA-256 of ${1##*/} is $got, not $2"
	return 1
}

# The address of a Debian mirror, from apt's own configuration.
mirror() {
	# shellcheck disable=SC2016 # apt's own variables
	apt-get indextargets --format '$(SITE) $(COMPONENT)' 'Created-By: Packages' 'Label: Debian' |
		awk '$2 == "main" { print $1; exit }'
}
