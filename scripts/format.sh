#!/usr/bin/env bash
# `make format`: lets ruff mend and format what it can.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
bin=$(dirname "$(python_of test)")
"$bin/ruff" check --fix
"$bin/ruff" format
