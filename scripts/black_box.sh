#!/usr/bin/env bash
# `make black-box`: performs the black-box table in the system's Chromium and writes what was seen into docs/black-box.md.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
ensure_chromium
PYTHONPATH=$checkout exec "$(python_of test)" scripts/black_box.py docs/black-box.md
