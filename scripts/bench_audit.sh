#!/usr/bin/env bash
# `make bench-audit`: what a record of the audit costs, on this checkout's disk or on that of FOLDER.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
PYTHONPATH=$checkout exec "$(python_of test)" scripts/bench_audit.py "$@"
