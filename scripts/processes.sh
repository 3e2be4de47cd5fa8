# shellcheck shell=bash
# Sourced by up.sh and down.sh: what runs in the background, and how it ends. Needs environments.sh.

# Where pid files, logs and the model server's configuration go. Another RUN_DIR is another stack beside the first.
run_dir=$(realpath --canonicalize-missing -- "${RUN_DIR:-.run}")
mkdir -p "$run_dir"

# Held while a stack starts or stops; background processes must not inherit it.
exec 9>"$run_dir/lock"
flock --nonblock 9 || die "another make up or make down is at work on $run_dir"

# start NAME COMMAND...: in a session of its own, with its pid in NAME.pid and its output in NAME.log. The variable marks the
# process and its children as this stack's: a pid file alone could name a stranger after a restart of the machine.
start() {
  local name=$1
  shift
  DERMSERVE_RUN=$run_dir setsid "$@" >"$run_dir/$name.log" 2>&1 </dev/null 9>&- &
  printf '%s\n' $! >"$run_dir/$name.pid"
}

# members NAME: pids of the session that NAME leads. Zombies have ended, even where no init process reaps them.
members() {
  local leader stat line pid state session
  read -r leader 2>/dev/null <"$run_dir/$1.pid" || return 0
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue
    # The command's name stands in brackets and may hold anything.
    read -r state _ _ session _ <<<"${line##*) }"
    [ "$session" = "$leader" ] && [ "$state" != Z ] || continue
    pid=${stat//[!0-9]/}
    if grep --quiet --null-data --fixed-strings --line-regexp "DERMSERVE_RUN=$run_dir" "/proc/$pid/environ" 2>/dev/null; then
      printf '%s\n' "$pid"
    fi
  done
}

is_running() { [ -n "$(members "$1")" ]; }

# stop NAME SECONDS: asks, waits, then kills. Fails when it had to kill.
stop() {
  local name=$1 deadline=$((SECONDS + $2)) clean=0 engine container
  if read -r engine container 2>/dev/null <"$run_dir/$name.container"; then
    "$engine" stop -t 10 "$container" >/dev/null 2>&1 || say "$engine could not stop the container $container" >&2
    rm -f "$run_dir/$name.container"
  fi
  if is_running "$name"; then
    kill -TERM "$(<"$run_dir/$name.pid")" 2>/dev/null || true
    while is_running "$name" && [ $SECONDS -lt $deadline ]; do sleep 0.2; done
    if is_running "$name"; then
      members "$name" | xargs --no-run-if-empty kill -KILL 2>/dev/null || true
      say "The $name did not stop within $2 s and was killed; see $run_dir/$name.log" >&2
      clean=1
    else
      say "The $name has stopped."
    fi
  fi
  rm -f "$run_dir/$name.pid"
  return $clean
}

# The gateway first: it finishes its requests while the model server still answers. Both limits lie above what the processes
# give themselves (request budget 20 s, the embedded server's grace 10 s).
stop_all() {
  local clean=0
  stop gateway 30 || clean=1
  stop model-server 30 || clean=1
  rm -f "$run_dir/address"
  return $clean
}
