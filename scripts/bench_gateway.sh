#!/usr/bin/env bash
# `make bench-gateway`: what the gateway costs and adds, and the stack against the paper's way; writes docs/gateway-speed.md.
# Takes about eight minutes. Run it with nothing else running.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment gateway
ensure_environment test
cost=$(mktemp)
trap 'rm -f "$cost"' EXIT
PYTHONPATH=$checkout "$(python_of test)" scripts/bench_gateway.py "$(python_of gateway)" | tee "$cost"
PYTHONPATH=$checkout "$(python_of test)" scripts/bench_paper.py docs "$cost"
