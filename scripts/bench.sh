#!/usr/bin/env bash
# `make bench`: what one gateway costs, without a model server. Run it with nothing else running.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment gateway
ensure_environment test
exec "$(python_of test)" scripts/bench_gateway.py "$(python_of gateway)"
