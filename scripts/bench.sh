#!/usr/bin/env bash
# `make bench`: Dermserve beside other ways to serve the same model; writes its part of docs/benchmarks.md. Takes about twenty
# minutes, after what the first time takes to install the others. Run it with nothing else running. `scripts/bench.sh --help`
# lists what can be asked otherwise; an interrupted run is taken up again.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
pythons=()
for role in bentoml ray engines; do
  ensure_environment "$role"
  pythons+=(--python "$role=$(python_of "$role")")
done
exec "$(python_of test)" -m scripts.bench "${pythons[@]}" "$@"
