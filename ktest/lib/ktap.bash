# Sourced by the scripts that print results, on the host and in the guest: KTAP, as the kernel's own
# tests print it.
# shellcheck shell=bash

KTAP_NUMBER=0

# ktap_begin COUNT: so many tests follow.
ktap_begin() {
	KTAP_NUMBER=0
	printf 'KTAP version 1\n1..%d\n' "$1"
}

# ktap_pass NAME, ktap_fail NAME, ktap_skip NAME WHY: the result of the next test.
ktap_pass() { printf 'ok %d %s\n' $((++KTAP_NUMBER)) "$1"; }
ktap_fail() { printf 'not ok %d %s\n' $((++KTAP_NUMBER)) "$1"; }
ktap_skip() { printf 'ok %d %s # SKIP %s\n' $((++KTAP_NUMBER)) "$1" "$2"; }

# ktap_result STATUS NAME: it passed where STATUS is 0.
ktap_result() { if (($1 == 0)); then ktap_pass "$2"; else ktap_fail "$2"; fi; }

# What is read, as comments on the result that follows.
ktap_comment() { sed -u 's/^/# /'; }

# What kselftest's runner prints: it marks the lines of a test program as comments; indented, they
# are the subtests they are.
ktap_of_kselftest() { sed -u 's/^\( *\)# \(.*\)/\1    \2/'; }

# KTAP that is read, as the subtests of the result that follows.
ktap_subtests() { sed -u 's/^/    /'; }
