# Sourced with a role (gateway, serving or test): makes .venvs/ROLE from its hashed lock and sets VENV to it.
# Installed anew only when the lock has changed. VENV_HOME lets a test reuse environments that are there already.

role=$1
VENV=${VENV_HOME:-.venvs}/$role
lock=requirements/$role.txt

missing_package() {
  # $1: what is missing, $2: the Debian package
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $2 ($1 is missing)" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2"; } >/dev/null
  else
    echo "$1 is missing; install it with: sudo apt-get install $2" >&2
    return 1
  fi
}

find_python() {
  for name in python3.11 python3.12 python3.13 python3; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  return 1
}

if [ "$(cat "$VENV/.lock" 2>/dev/null)" != "$(sha256sum <"$lock")" ]; then
  PYTHON=$(find_python) || { missing_package "Python 3.11 or newer" python3 && PYTHON=$(find_python); } || exit 1
  "$PYTHON" -c 'import ensurepip' 2>/dev/null || missing_package "the venv module" "$("$PYTHON" -c 'import sys; print(f"python3.{sys.version_info[1]}-venv")')" || exit 1
  echo "installing $lock into $VENV" >&2
  rm -rf "$VENV"
  "$PYTHON" -m venv "$VENV" || exit 1
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" || exit 1
  sha256sum <"$lock" >"$VENV/.lock"
fi
