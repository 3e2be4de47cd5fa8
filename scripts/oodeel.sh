#!/usr/bin/env bash
# `make oodeel [RECORD=record]`: takes the scores that tests/unit/training/oodeel.json records once more, from the library itself.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment oodeel
TF_CPP_MIN_LOG_LEVEL=3 "$(python_of oodeel)" -m tests.oodeel_reference ${RECORD:+record}
