#!/usr/bin/env bash
# `make down`: stops what `make up` started, whole or half.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"
# shellcheck source=scripts/processes.sh
source scripts/processes.sh

if ! is_running gateway && ! is_running model-server; then
  say "Dermserve is not running."
fi
stop_all
