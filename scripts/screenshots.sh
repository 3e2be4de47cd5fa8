#!/usr/bin/env bash
# `make screenshots`: takes the portal's main states in the system's Chromium into docs/screenshots and writes their gallery into
# docs/portal.md.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
ensure_chromium
PYTHONPATH=$checkout exec "$(python_of test)" scripts/screenshots.py docs
