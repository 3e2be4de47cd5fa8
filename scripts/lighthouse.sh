#!/usr/bin/env bash
# `make lighthouse`: starts the portal over the tiny model, measures its pages with Lighthouse in the system's Chromium, writes the
# scores into docs/portal.md, and fails where one is too low.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
ensure_node_packages lighthouse tests/lighthouse lighthouse
ensure_chromium
PYTHONPATH=$checkout exec "$(python_of test)" scripts/lighthouse.py docs/portal.md
