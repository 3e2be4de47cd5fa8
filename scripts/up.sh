#!/usr/bin/env bash
# `make up`: starts a model server and the gateway in the background, on loopback, and waits until they can classify.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"
# shellcheck source=scripts/processes.sh
source scripts/processes.sh

ready_timeout_s=180 # importing TensorFlow from a cold disk takes most of it
# Qualified, because podman has no default registry to look for short names in.
image=docker.io/tensorflow/serving:2.20.0
model_base=$(realpath --canonicalize-missing -- "${MODEL_BASE:-serving/models/lesion}")

refuse_second_start() {
  if is_running gateway && is_running model-server; then
    local address
    address=$(<"$run_dir/address")
    [ -z "${PORT:-}" ] || [ "$address" = "http://127.0.0.1:$PORT" ] ||
      die "Dermserve is already up at $address; run make down before starting it at another PORT="
    say "Dermserve is already up: $address (make down stops it)"
    exit 0
  fi
  if is_running gateway || is_running model-server; then
    say "Only half of Dermserve is running; stopping it first."
    stop_all
  fi
}

choose_model_server() {
  case ${MODEL_SERVER:-} in
    embedded | docker) model_server=$MODEL_SERVER ;;
    "") model_server=$(command -v tensorflow_model_server >/dev/null && echo tensorflow_model_server || echo embedded) ;;
    *) die "MODEL_SERVER=$MODEL_SERVER is unknown; use docker or embedded, or leave it out" ;;
  esac
  [ "$model_server" = docker ] || return 0
  for engine in docker podman; do
    timeout 20 "$engine" info >/dev/null 2>&1 || continue
    # Here, because a download must not count as a slow start.
    "$engine" image inspect "$image" >/dev/null 2>&1 || "$engine" pull "$image"
    return
  done
  die "MODEL_SERVER=docker needs docker or podman, and neither answers (tried: docker info, podman info)"
}

# choose_port NAME DEFAULT CHOSEN...: a port that was asked for has to be free; a default makes way.
choose_port() {
  local asked=${!1:-} default=$2
  shift 2
  "$base_python" scripts/bind_port.py "${asked:-$default}" "$@" && return
  [ -z "$asked" ] || die "port $asked is taken or not a port; choose another one"
  "$base_python" scripts/bind_port.py 0 "$@"
}

require_model() {
  local version
  for version in $(grep --only-matching --extended-regexp 'versions: *[0-9]+' serving/config/models.config | tr -dc '0-9\n'); do
    [ -s "$model_base/$version/saved_model.pb" ] ||
      die "no version $version of the model in $model_base, which serving/config/models.config loads; train and export one (docs/training.md), or name another folder of versions with MODEL_BASE="
  done
}

start_model_server() {
  # A copy, for a roll-out writes it. A folder, because what it replaces must be seen inside a container.
  local config=$run_dir/config flags=(
    --enable_batching=true
    # Two to three times the largest batch: at its default the server's own threads would cap the batch.
    --grpc_max_threads=96
    --file_system_poll_wait_seconds=1
    --allow_version_labels_for_unavailable_models=true
    # A version that does not load is told at once. By default it is tried again for five minutes, and holds up all others.
    --max_num_load_retries=0
  )
  mkdir -p "$config"
  cp serving/config/* "$config/"
  if [ "$model_server" = docker ]; then
    local container=dermserve-$$
    printf '%s %s\n' "$engine" "$container" >"$run_dir/model-server.container"
    # The base path in models.config is the one inside the container.
    start model-server "$engine" run --rm --name "$container" \
      --publish "127.0.0.1:$model_port:8500" --publish "127.0.0.1:$model_rest_port:8501" \
      --volume "$model_base:/models/lesion:ro" --volume "$config:/config:ro" "$image" \
      --model_config_file=/config/models.config --batching_parameters_file=/config/batching.config \
      --monitoring_config_file=/config/monitoring.config "${flags[@]}"
    return
  fi
  sed --in-place "s|base_path: \"[^\"]*\"|base_path: \"${model_base//&/\\&}\"|" "$config/models.config"
  flags+=(
    "--port=$model_port" "--rest_api_port=$model_rest_port" "--model_config_file=$config/models.config"
    "--batching_parameters_file=$config/batching.config" "--monitoring_config_file=$config/monitoring.config"
  )
  if [ "$model_server" = tensorflow_model_server ]; then
    start model-server tensorflow_model_server "${flags[@]}"
  else
    start model-server "$(python_of serving)" -m serving.embedded --host=127.0.0.1 "${flags[@]}"
  fi
}

start_gateway() {
  GATEWAY_BIND=127.0.0.1:$port GATEWAY_MODEL_SERVER=127.0.0.1:$model_port \
    start gateway "$(python_of gateway)" -m gunicorn --config gateway/gunicorn.conf.py gateway.wsgi:app
}

is_ready() {
  "$base_python" - "$port" 2>/dev/null <<'PY'
import sys
import urllib.request

# No proxy stands between this machine and itself.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(f"http://127.0.0.1:{sys.argv[1]}/health/ready", timeout=5)
PY
}

wait_until_ready() {
  local name deadline=$((SECONDS + ready_timeout_s))
  until is_ready; do
    for name in model-server gateway; do
      is_running "$name" || give_up "the $name ended while starting"
    done
    [ $SECONDS -lt $deadline ] || give_up "not ready after $ready_timeout_s s"
    sleep 0.3
  done
}

give_up() {
  for name in model-server gateway; do
    printf -- '--- the end of %s\n' "$run_dir/$name.log"
    tail -n 20 "$run_dir/$name.log" || true
  done >&2
  die "$1; both logs end above"
}

# On any way out before it is ready, an interrupt included, nothing stays behind.
abandon() {
  trap - EXIT
  stop_all || true
}

refuse_second_start
choose_model_server
require_model
require_python
port=$("$base_python" scripts/bind_port.py "${PORT:-8000}") ||
  die "port ${PORT:-8000} is taken by another program or not a port; choose another: make up PORT=8080"
model_port=$(choose_port MODEL_PORT 8500 "$port")
model_rest_port=$(choose_port MODEL_REST_PORT 8501 "$port" "$model_port")
ensure_environment gateway
if [ "$model_server" = embedded ]; then ensure_environment serving; fi

trap abandon EXIT
trap 'exit 130' INT TERM
say "Starting the model server ($model_server) and the gateway ..."
start_model_server
start_gateway
wait_until_ready
trap - EXIT
printf 'http://127.0.0.1:%s\n' "$port" >"$run_dir/address"
say "Dermserve is up: http://127.0.0.1:$port
  model server: $model_server, gRPC 127.0.0.1:$model_port, REST 127.0.0.1:$model_rest_port
  logs:         $run_dir/gateway.log, $run_dir/model-server.log
  stop:         make down${RUN_DIR:+ RUN_DIR=$RUN_DIR}"
if [ "$model_server" = tensorflow_model_server ]; then
  say "Note: tensorflow_model_server has no flag to bind loopback only; ports $model_port and $model_rest_port are open on every interface."
fi
