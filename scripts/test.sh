#!/usr/bin/env bash
# `make test`: installs what the tests need and runs them all; the linters are tests too (tests/architecture).
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
ensure_provider
ensure_environment triton
# Triton's Python backend loads the interpreter as a library, which Debian packs apart.
version=$("$(python_of triton)" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
"$(python_of triton)" - "$version" <<'PY' || install_packages "lib$version"
import ctypes.util
import pathlib
import sys

beside = pathlib.Path(sys.base_prefix, "lib", f"lib{sys.argv[1]}.so.1.0")
sys.exit(not (ctypes.util.find_library(sys.argv[1]) or beside.exists()))
PY
command -v promtool >/dev/null || install_packages prometheus
VENV_TEST=$(dirname "$(dirname "$(python_of test)")")
export VENV_TEST
ensure_chromium
ensure_kubectl
ensure_environment checkov
# Real ones for the tests of rate limits and of the case record; each test starts its own.
command -v redis-server >/dev/null || install_packages redis-server
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || install_packages postgresql
# Real ones for the tests of the images. runc, because crun refuses machines with both kinds of cgroups; iptables is netavark's.
if ! command -v podman >/dev/null || ! command -v mmdebstrap >/dev/null; then
  install_packages podman runc netavark aardvark-dns catatonit iptables mmdebstrap
fi
# Two files at a time: the tests wait for processes more than they compute. Fixtures of a file stay in one process.
# In our order (tests/conftest.py): its own would leave files with few and long tests for the end.
exec "$VENV_TEST/bin/python" -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder </dev/null
