#!/usr/bin/env bash
# Writes the hashed locks. test.txt is solved first and constrains the others, so that what is tested is what is deployed.
set -euo pipefail
cd "$(dirname "$0")"
compile() {
  uv pip compile --quiet --python-version 3.11 --python-platform "${platform:-x86_64-unknown-linux-gnu}" --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links "${@:2}" "$1.in" -o "$1.txt"
}
compile test
for role in gateway serving load release; do compile "$role" -c test.txt; done
compile isic
compile oodeel
compile checkov
# Other servers of the same model, and engines, to compare with.
for role in bentoml ray engines; do compile "$role"; done
# The files in it, and nothing that it asks for.
compile kubectl --no-deps
# NVIDIA built Triton's only wheel on Ubuntu 22.04.
platform=x86_64-manylinux_2_35 compile triton
