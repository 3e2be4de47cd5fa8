"""What is in the images, and what is not."""

import hashlib
import json
import re
import stat
import subprocess

import pytest

from tests.containers.engine import READ_ONLY
from tests.processes import ROOT

# Whoever comes first waits for the builds.
pytestmark = pytest.mark.timeout(1200)

MAX_GATEWAY_BYTES = 250_000_000
OURS = {"gateway", "serving", "web", "docs", "LICENSE"}


@pytest.fixture(scope="module")
def gateway_files(engine, images):
    with engine.files(images("gateway")) as root:
        yield root


def is_program(path):
    return path.is_file() and not path.is_symlink() and path.stat().st_mode & stat.S_IXUSR


def test_the_gateway_is_small(engine, images, base_image):
    size = engine.inspect("image", images("gateway"))["Size"]

    assert size < MAX_GATEWAY_BYTES, f"on {base_image}"


def test_the_gateway_has_no_tensorflow(gateway_files):
    """Not as a module, and not as a file of any name."""
    found = [
        path for path in gateway_files.rglob("*") if re.search(r"tensorflow|keras|sklearn|torch", path.name, re.IGNORECASE)
    ]

    assert found == []
    assert list(gateway_files.rglob("cygrpc*.so")), "otherwise the above would prove nothing"


def test_the_gateway_has_nothing_to_run_but_the_interpreter(gateway_files):
    """No shell, no package manager, no compiler; nothing that runs with another's rights."""
    programs = [path for path in gateway_files.rglob("*") if is_program(path) and ".so" not in path.name]
    named = {path.name for path in programs if path.parent.name in ("bin", "sbin")}

    assert len(named) == 1
    assert named.pop().startswith("python3.")
    assert not [path for path in programs if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not list(gateway_files.rglob("site-packages/pip"))


def test_the_gateway_has_of_the_checkout_what_it_runs_and_nothing_else(gateway_files):
    app = gateway_files / "app"
    files = {str(path.relative_to(app)) for path in app.rglob("*") if path.is_file() and path.parent.name != "__pycache__"}
    command = ["git", "ls-files", "--others", "--cached", "--exclude-standard"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert {path.name for path in app.iterdir()} == OURS
    assert files <= set(tracked.stdout.splitlines())
    assert not [name for name in files if name.startswith(("serving/models/", "serving/embedded/", "docs/adr/"))]
    assert "web/translations/id/LC_MESSAGES/messages.mo" in files


def test_the_gateway_s_files_belong_to_root_and_nobody_else_can_change_them(gateway_files):
    writable = [
        path
        for path in gateway_files.rglob("*")
        if not path.is_symlink() and (path.stat().st_uid != 0 or path.stat().st_mode & stat.S_IWOTH)
    ]

    assert writable == [gateway_files / "tmp"]


def test_the_gateway_keeps_names_and_licences_of_debian_s_packages_for_scanners(gateway_files):
    packages = {path.name for path in (gateway_files / "var/lib/dpkg/status.d").iterdir()}

    assert {"libc6", "libssl3", "libstdc++6"} <= packages or {"libc6", "libssl3t64", "libstdc++6"} <= packages
    assert all((gateway_files / "usr/share/doc" / name / "copyright").exists() for name in ("libc6",))


def test_the_models_are_those_of_the_checkout_and_there_is_nothing_else(engine, images):
    def digests(folder):
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    with engine.files(images("models")) as root:
        found = digests(root)

    expected = digests(ROOT / "serving/models/lesion")
    assert {f"models/lesion/{name}": digest for name, digest in expected.items()} == found


@pytest.mark.parametrize("name", ["gateway", "training", "models", "loadtests"])
def test_an_image_says_what_it_is(engine, images, name):
    labels = engine.inspect("image", images(name))["Labels"]
    kinds = {kind: labels[f"org.opencontainers.image.{kind}"] for kind in ("title", "version", "revision")}

    assert kinds["title"].startswith("Dermserve")
    assert f'version = "{kinds["version"]}"' in (ROOT / "pyproject.toml").read_text()
    assert re.fullmatch(r"[0-9a-f]{40}(-changed)?", kinds["revision"])
    assert name == "models" or labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.parametrize("name", ["gateway", "training", "loadtests"])
def test_an_image_runs_as_nobody_and_holds_no_secret(engine, images, name):
    config = engine.inspect("image", images(name))["Config"]
    history = engine("history", "--no-trunc", "--format", "{{.CreatedBy}}", images(name))

    assert config["User"] == "10001:10001"
    assert not [item for item in config["Env"] if re.search("PASSWORD|SECRET|TOKEN|KEY", item)]
    assert "index-url" not in history


@pytest.mark.parametrize("module", ["training", "serving.embedded"])
def test_training_and_the_embedded_server_run_in_one_image(engine, images, module):
    printed = engine.once(images("training"), "python", "-m", module, "--help", flags=READ_ONLY)

    assert f"python -m {module}" in printed


def test_a_bill_of_materials_names_every_package_of_the_lock(images):
    for name, lock in (("gateway", "gateway"), ("training", "serving"), ("loadtests", "load")):
        bill = json.loads((ROOT / ".images" / f"{name}.cdx.json").read_text())
        locked = set(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements" / f"{lock}.txt").read_text(), re.MULTILINE))

        assert bill["bomFormat"] == "CycloneDX"
        assert {(item["name"], item["version"]) for item in bill["components"]} == locked
