#!/usr/bin/env bash
# `make rehearse`: upgrade, rollback, loss and restoration under traffic on this machine; writes the figures of docs/recovery.md.
# Takes about three minutes; needs redis-server and PostgreSQL's programs.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
PYTHONPATH=$checkout exec "$(python_of test)" -m scripts.rehearsal docs/recovery.md
