#!/usr/bin/env bash
# `make wire`: writes the code generated from the .proto files beside them. `wire.sh FOLDER` writes it there instead.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
out=${1:-$checkout}
"$(python_of test)" -m grpc_tools.protoc -I . --python_out="$out" --pyi_out="$out" \
  serving/wire/prediction.proto serving/wire/management.proto serving/wire/open_inference.proto \
  serving/embedded/settings.proto
