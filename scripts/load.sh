#!/usr/bin/env bash
# `make load`: a load test against what `make up` has started, or against HOST=; ends with 1 when what is promised does not hold.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

run_dir=$(realpath --canonicalize-missing -- "${RUN_DIR:-.run}")
host=${HOST:-}
if [ -z "$host" ]; then
  [ -s "$run_dir/address" ] || die "nothing is up in $run_dir; run make up first, or name another gateway: make load HOST=http://..."
  host=$(<"$run_dir/address")
fi
ensure_environment load
python=$(python_of load)
# Real pictures lie in a folder of their own, so that they are sent when REAL names them and at no other time.
if [ -n "${REAL:-}" ]; then
  corpus=${LOAD_CORPUS:-$run_dir/corpus-real}
  "$python" -m loadtests.corpus "$corpus" --real "$REAL"
else
  corpus=${LOAD_CORPUS:-$run_dir/corpus}
  if [ ! -s "$corpus/manifest.json" ] || { [ -z "${LOAD_CORPUS:-}" ] && grep -q '"kind": "real"' "$corpus/manifest.json"; }; then
    "$python" -m loadtests.corpus "$corpus"
  fi
fi
shape=${SHAPE:-soak}
reports=${LOAD_REPORTS:-$run_dir/load/$(date --utc +%Y%m%dT%H%M%SZ)-$shape}
exec "$python" -m locust --config loadtests/locust.conf --host "$host" --shape "$shape" --duration "${DURATION:-60}" \
  --peak "${PEAK:-5}" --corpus "$corpus" --reports "$reports" --html "$reports/locust.html"
