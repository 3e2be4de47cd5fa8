#!/usr/bin/env bash
# `make bench-serving`: pictures a second, through every stage; writes docs/serving-speed.md. Run it with nothing else running.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
PYTHONPATH=$checkout exec "$(python_of test)" scripts/bench_serving.py docs
