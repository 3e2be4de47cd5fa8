#!/usr/bin/env bash
# `make reduction`: measures what the browser's reduction does to the answers of the released model, and writes it into docs/portal.md.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
ensure_chromium
PYTHONPATH=$checkout exec "$(python_of test)" scripts/reduction.py docs/portal.md
