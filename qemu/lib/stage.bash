# Sourced by common.bash: long work shows its stage, a progress bar and the time left.
# shellcheck shell=bash

# The exit status of a script that a signal ended.
INTERRUPTED=130

minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# draw_stage NAME STEP STEPS SECONDS: stage NAME at STEP of STEPS (0: not known), SECONDS after its
# start.
draw_stage() {
	local text="$1: " bar percent left
	if (($3 > $2 && $2 * 50 > $3)); then
		percent=$(($2 * 100 / $3)) left=$(($4 * ($3 - $2) / $2))
		printf -v bar '%*s' $((percent / 4)) ''
		printf -v bar '%-25s' "${bar// /#}"
		text="$1 [${bar// /.}] $percent %, about $(minutes $left) left"
	else
		if (($2)); then text+="$2 steps, "; fi
		text+=$(minutes "$4")
	fi
	if [[ -t 2 ]]; then printf '\r\e[K%s' "$text" >&2; else say "  $text"; fi
}

# How many steps a log has: lines of kbuild and cargo ("  CC  file.o"; those of Rust take longest,
# downloads next to no time), of apt, tar and quilt, of cargo test and KTAP.
count_steps() {
	awk '
		/^ +RUSTC [LP]/ { n += 9 }
		(/^ +[A-Z]/ && !/^ +Download/) ||
		/^(Unpacking|Setting up|Refreshed patch) |^tar: / ||
		/^ *(not )?ok |^test .*\.\.\. |^ *# (fuzzing|running) / { n++ }
		END { print n + 0 }' "$1"
}

# stage NAME LOG STEPS COMMAND...: runs COMMAND, all its output in LOG, and shows how far it is.
# STEPS is how many steps are expected, 0 if that is not known.
stage() {
	local name=$1 log=$2 steps=$3 start=$SECONDS shown=$SECONDS every=30 pid status=0
	shift 3
	if [[ -t 2 ]]; then every=1; fi
	say "==> $name (log: $log)"
	mkdir -p "$(dirname "$log")"
	# In a process group of its own, so that all of it can be ended.
	set -m
	"$@" </dev/null >"$log" 2>&1 &
	pid=$!
	set +m
	# shellcheck disable=SC2064 # the values of now
	trap "interrupt_stage '$name' $pid" HUP INT TERM
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		if ((SECONDS - shown >= every)); then
			shown=$SECONDS
			draw_stage "$name" "$(count_steps "$log")" "$steps" $((SECONDS - start)) || true
		fi
	done
	wait "$pid" || status=$?
	trap - HUP INT TERM
	if [[ -t 2 ]]; then printf '\r\e[K' >&2; fi
	if ((status)); then
		say "--- from $log:"
		grep -nE '\*\*\* \[|[Ee]rror\b|[Ww]arning:|No space left' "$log" | tail -n 15 >&2 ||
			tail -n 15 "$log" >&2
		explain_failure "$name" "$log" $status
	fi
	say "    done in $(minutes $((SECONDS - start)))"
}

# interrupt_stage NAME PID: ends the stage's process group, and this script.
interrupt_stage() {
	kill -- "-$2" 2>/dev/null || true
	say
	say "error: $1: interrupted"
	say "       Run the same command again: what is built stays."
	exit $INTERRUPTED
}

# check_space WHAT [LOG]: ends here if WHAT failed for want of space. LOG may be cut short by that.
check_space() {
	if (($(df --output=avail -k "$CACHE" | tail -n1) < 65536)) ||
		grep -qs 'No space left on device' "${2:-}"; then
		die "$1: the disk is full" \
			"Free some space (df -h $CACHE; make distclean empties the cache) and run the same command again."
	fi
}

# explain_failure NAME LOG STATUS
explain_failure() {
	local no_network='Could not resolve|Temporary failure resolving|Failed to fetch'
	no_network+='|Connection (refused|timed out)|Could not fetch URL|download of .* failed'
	check_space "$1" "$2"
	if grep -qE "$no_network" "$2"; then
		die "$1: the network cannot be reached" "See $2; connect, and run the same command again."
	fi
	die "$1 failed with status $3" "All of its output is in $2."
}
