#!/usr/bin/env bash
# `make prove-rollout`: two replicas of the embedded model server, a gateway, steady traffic. Takes about two minutes.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
PYTHONPATH=$checkout exec "$(python_of test)" scripts/prove_rollout.py
