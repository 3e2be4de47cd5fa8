#!/usr/bin/env bash
# `make bench-overload`: constant arrivals up to five times the capacity; writes docs/overload.md. Takes about three minutes.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
PYTHONPATH=$checkout exec "$(python_of test)" scripts/bench_overload.py docs
