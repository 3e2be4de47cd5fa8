#!/usr/bin/env bash
# `make lint`: every linter, all of them even when one complains. tests/architecture runs this too.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
bin=$(dirname "$(python_of test)")
failed=()
run() {
  say "$*"
  "$bin/$1" "${@:2}" || failed+=("$1")
}
run ruff check
run ruff format --check
run mypy
run lint-imports
run shellcheck --external-sources scripts/*.sh requirements/lock.sh .ci/run
run hadolint Dockerfile
[ ${#failed[@]} -eq 0 ] || die "these complained: ${failed[*]}"
