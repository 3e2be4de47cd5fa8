#!/usr/bin/env bash
# `make capacity`: measures what a picture costs, compares a simulation with a run of the stack, plans a country; writes
# docs/capacity.md. Takes about six minutes. Run it with nothing else running.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
exec "$(python_of test)" -m scripts.capacity docs
