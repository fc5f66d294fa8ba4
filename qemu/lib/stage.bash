# Sourced by common.bash: long work shows its stage, a progress bar and the time left.
# shellcheck shell=bash

minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# Draws stage $1 at step $2 of $3 (0: not known), $4 seconds after its start.
draw_stage() {
	local text="$1: " bar percent left
	(($2 == 0)) || text+="$2 steps, "
	text+=$(minutes "$4")
	if (($3 > $2 && $2 * 50 > $3)); then
		percent=$(($2 * 100 / $3)) left=$(($4 * ($3 - $2) / $2))
		printf -v bar '%*s' $((percent / 4)) ''
		printf -v bar '%-25s' "${bar// /#}"
		text="$1 [${bar// /.}] $percent %, about $(minutes $left) left"
	fi
	if [[ -t 2 ]]; then printf '\r\e[K%s' "$text" >&2; else say "  $text"; fi
}

# How many steps a log has: a line of kbuild or cargo ("  CC  file.o"; Rust's take longest, downloads next to no time), of
# KTAP, of tar's checkpoints.
count_steps() {
	awk '/^ +RUSTC [LP]/ { n += 9 } (/^ +[A-Z]/ && !/^ +Download/) || /^ *(not )?ok |^(Unpacking|Setting up) |^test .*\.\.\. |^tar: |^ *# (fuzzing|running) / { n++ } END { print n + 0 }' "$1"
}

# stage NAME LOG STEPS COMMAND...: runs COMMAND, all its output in LOG, and shows how far it is. STEPS is how many
# steps are expected, 0 if that is not known.
stage() {
	local name=$1 log=$2 steps=$3 start=$SECONDS shown=$SECONDS every=30 pid status=0
	shift 3
	[[ ! -t 2 ]] || every=1
	say "==> $name (log: $log)"
	mkdir -p "$(dirname "$log")"
	# In a process group of its own, so that all of it can be ended.
	set -m
	"$@" </dev/null >"$log" 2>&1 &
	pid=$!
	set +m
	# shellcheck disable=SC2064 # the values of now
	trap "kill -- -$pid 2>/dev/null || true; say; die '$name: interrupted' 'Run the same command again: what is built stays.'" HUP INT TERM
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		((SECONDS - shown >= every)) || continue
		shown=$SECONDS
		draw_stage "$name" "$(count_steps "$log")" "$steps" $((SECONDS - start)) || true
	done
	wait "$pid" || status=$?
	trap - HUP INT TERM
	[[ ! -t 2 ]] || printf '\r\e[K' >&2
	if ((status)); then
		say "--- from $log:"
		grep -nE '\*\*\* \[|[Ee]rror\b|[Ww]arning:|No space left' "$log" | tail -n 15 >&2 || tail -n 15 "$log" >&2
		explain_failure "$name" "$log" $status
	fi
	say "    done in $(minutes $((SECONDS - start)))"
}

# check_space WHAT [LOG]: ends here if it is for want of space that WHAT failed. LOG may be cut short by the same want.
check_space() {
	if (($(df --output=avail -k "$CACHE" | tail -n1) < 65536)) || grep -qs 'No space left on device' "${2:-}"; then
		die "$1: the disk is full" "Free some space (df -h $CACHE; make distclean empties the cache) and run the same command again."
	fi
}

# explain_failure NAME LOG STATUS
explain_failure() {
	check_space "$1" "$2"
	if grep -qE 'Could not resolve|Temporary failure resolving|Failed to fetch|Connection (refused|timed out)|Could not fetch URL|download of .* failed' "$2"; then
		die "$1: the network cannot be reached" "See $2; connect, and run the same command again."
	fi
	die "$1 failed with status $3" "All of its output is in $2."
}
