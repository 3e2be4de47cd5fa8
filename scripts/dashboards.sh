#!/usr/bin/env bash
# `make dashboards`: writes Grafana's dashboards into k8s/components/monitoring/dashboards. Nothing there is to be edited.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
exec "$(python_of test)" scripts/dashboards k8s/components/monitoring/dashboards
