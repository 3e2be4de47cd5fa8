import json
import re

import pytest

from tests.processes import ROOT

REQUIREMENTS = ROOT / "requirements"
LOCKS = sorted(REQUIREMENTS.glob("*.txt"))
CONSTRAINED = ("gateway", "serving", "load", "release")
ENTRY = re.compile(r"([a-z0-9][a-z0-9.-]*)==(\S+?)( ; [^\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def pins(lock):
    return {name: version for name, version, _, _ in ENTRY.findall(lock.read_text())}


def wanted(role):
    """Names in ROLE.in, those of the files it takes in included."""
    for line in (REQUIREMENTS / f"{role}.in").read_text().splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement.startswith("-r "):
            yield from wanted(requirement.removeprefix("-r ").removesuffix(".in"))
        elif requirement:
            yield re.split(r"[\[<>=]", requirement)[0]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_holds_names_versions_and_hashes_and_nothing_else(lock):
    """No address of an index, no path of a machine, no version without a hash."""
    assert ENTRY.sub("", lock.read_text()) == ""
    assert pins(lock)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_covers_what_its_source_asks_for(lock):
    assert set(wanted(lock.stem)) <= pins(lock).keys(), "run make lock"


@pytest.mark.parametrize("role", CONSTRAINED)
def test_what_is_deployed_is_what_is_tested(role):
    tested = pins(REQUIREMENTS / "test.txt")

    assert pins(REQUIREMENTS / f"{role}.txt").items() <= tested.items()


def test_the_gateway_is_deployed_without_tensorflow():
    assert not pins(REQUIREMENTS / "gateway.txt").keys() & {"tensorflow", "tensorflow-serving-api", "keras"}


@pytest.mark.parametrize(("folder", "package"), [("oidc_provider", "oidc-provider"), ("lighthouse", "lighthouse")])
def test_a_lock_of_node_packages_holds_hashes_and_no_address(folder, package):
    packages = json.loads((ROOT / "tests" / folder / "package-lock.json").read_text())["packages"]
    installed = {name: entry for name, entry in packages.items() if name}

    assert f"node_modules/{package}" in installed
    for name, entry in installed.items():
        assert entry["integrity"].startswith("sha512-"), name
        assert "resolved" not in entry, name
        assert not entry.get("hasInstallScript"), name
