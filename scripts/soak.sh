#!/usr/bin/env bash
# `make soak`: MINUTES=20 of traffic while one thing after another breaks; writes the figures of docs/soak.md.
# Needs redis-server, and util-linux's unshare: the disk that is filled is mounted where only this command sees it.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
isolate=(unshare --mount --propagation private)
[ "$(id -u)" -eq 0 ] || isolate+=(--user --map-root-user)
PYTHONPATH=$checkout exec "${isolate[@]}" "$(python_of test)" -m scripts.soak "${MINUTES:-20}" docs
