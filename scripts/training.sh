#!/usr/bin/env bash
# `make training`: installs what training needs; docs/training.md has the commands.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment serving
say "Ready: $(python_of serving) -m training --help"
