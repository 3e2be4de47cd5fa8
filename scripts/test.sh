#!/usr/bin/env bash
# `make test`: installs what the tests need and runs them all; the linters are tests too (tests/architecture).
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

find_chromium() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

ensure_environment test
if ! find_chromium >/dev/null; then install_packages chromium; fi
VENV_TEST=$(dirname "$(dirname "$(python_of test)")")
CHROMIUM=$(find_chromium)
export VENV_TEST CHROMIUM
exec "$VENV_TEST/bin/python" -m pytest </dev/null
