#!/usr/bin/env bash
# `make lock`: writes the hashed locks anew, with the locked uv.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
PATH=$(dirname "$(python_of test)"):$PATH requirements/lock.sh
