#!/usr/bin/env bash
# `make images`: builds the images with podman or docker, prints their sizes and writes their bills of materials into .images/.
# `images.sh TARGET... -- FLAG...` builds only those, with further flags for the build.
# PYTHON_IMAGE, PIP_CONF, REGISTRY, TAG and ENGINE: docs/containers.md.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

declare -A locks=([gateway]=gateway [training]=serving [loadtests]=load)
bills=.images
targets=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  targets+=("$1")
  shift
done
[ $# -eq 0 ] || shift
[ ${#targets[@]} -gt 0 ] || targets=(gateway training models loadtests)

engine=${ENGINE:-}
for candidate in podman docker; do
  [ -n "$engine" ] || ! timeout 20 "$candidate" info >/dev/null 2>&1 || engine=$candidate
done
[ -n "$engine" ] || die "needs podman or docker, and neither answers (tried: podman info, docker info)"
ensure_environment test

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD)$([ -z "$(git status --porcelain)" ] || echo -changed)
prefix=${REGISTRY:-localhost}/dermserve
tag=${TAG:-$version}
flags=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision")
[ -z "${PYTHON_IMAGE:-}" ] || flags+=(--build-arg "PYTHON_IMAGE=$PYTHON_IMAGE")
[ -z "${PIP_CONF:-}" ] || flags+=(--secret "id=pip,src=$PIP_CONF")
# Times are the commit's, so that one commit gives one image.
commit_time=$(git log -1 --format=%ct)
if [ "$engine" = podman ]; then flags+=(--timestamp "$commit_time"); else export SOURCE_DATE_EPOCH=$commit_time; fi

mkdir -p "$bills"
for target in "${targets[@]}"; do
  say "Building $prefix/$target:$tag"
  "$engine" build --quiet "${flags[@]}" "$@" --target "$target" --tag "$prefix/$target:$tag" . >/dev/null
  if [ -n "${locks[$target]:-}" ]; then
    "$(python_of test)" -m cyclonedx_py requirements "requirements/${locks[$target]}.txt" --pyproject pyproject.toml \
      --mc-type application --output-reproducible --output-format JSON --output-file "$bills/$target.cdx.json"
  fi
done
for target in "${targets[@]}"; do
  size=$("$engine" image inspect --format '{{.Size}}' "$prefix/$target:$tag")
  say "$prefix/$target:$tag $((size / 1000000)) MB"
done
