"""compose.yaml as a text, and the Dockerfile beside it: what must hold wherever they are used. Runs no container."""

import re

import pytest
import yaml

from tests.processes import ROOT

TOP = {"name", "services", "networks"}
SERVICE = {
    *("image", "entrypoint", "command", "user", "environment", "volumes", "networks", "ports", "depends_on"),
    *("read_only", "tmpfs", "cap_drop", "security_opt", "mem_limit", "pids_limit"),
    *("restart", "stop_grace_period", "healthcheck"),
}
"""The keys that we use. One that is misspelt would be ignored by some programs, and its promise with it."""


class Strict(yaml.SafeLoader):
    """A key that stands twice is a mistake."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"twice: {keys}"
        return super().construct_mapping(node, deep)


COMPOSE = yaml.load((ROOT / "compose.yaml").read_text(), Strict)  # noqa: S506  (a safe loader)
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UP = (ROOT / "scripts/up.sh").read_text()


def test_it_has_the_keys_that_we_know_and_no_others():
    assert set(COMPOSE) == TOP
    for service in SERVICES.values():
        assert set(service) <= SERVICE


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_can_write_nothing_and_may_nothing(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [entry.partition(":")[0] for entry in service["tmpfs"]] == ["/tmp"]  # noqa: S108
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert not {"privileged", "devices", "cap_add", "pid", "ipc", "network_mode"} & set(service)


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_has_limits_a_check_and_time_to_stop(service):
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert int(service["stop_grace_period"].removesuffix("s")) > 20


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_an_image_has_a_host_and_a_tag_that_does_not_move(service):
    name, _, tag = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", service["image"]).rpartition(":")

    assert name.partition("/")[0] in ("docker.io", "localhost")
    assert re.fullmatch(r"\d+\.\d+\.\d+", tag)


def test_the_gateway_s_tag_is_our_version():
    assert f"{{DERMSERVE_TAG:-{_our_version()}}}" in SERVICES["gateway"]["image"]


def test_only_the_gateway_is_published_and_only_to_this_host():
    assert SERVICES["gateway"]["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]
    assert "ports" not in SERVICES["serving"]
    assert SERVICES["serving"]["networks"] == ["model"]
    assert COMPOSE["networks"]["model"] == {"internal": True}


def test_the_model_server_is_the_one_of_make_up_with_its_flags():
    (image,) = re.findall(r"^image=(\S+)$", UP, re.MULTILINE)
    started = UP[UP.index("start_model_server()") : UP.index("start_gateway()")]
    (listed,) = re.findall(r"flags=\(\n(.*?)\n  \)", started, re.DOTALL)
    (in_container,) = re.findall(r'"\$image" \\\n(.*?) "\$\{flags', started, re.DOTALL)
    flags = re.findall(r"^ +(--\S+)", listed, re.MULTILINE) + re.findall(r"--\S+", in_container)

    assert SERVICES["serving"]["image"] == image
    assert len(flags) == 8
    assert set(SERVICES["serving"]["command"]) == {*flags, "--port=8500", "--rest_api_port=8501"}


def test_the_gateway_asks_who_somebody_is_by_a_file():
    environment = SERVICES["gateway"]["environment"]

    assert environment["GATEWAY_IDENTITY"] == "keys"
    assert environment["GATEWAY_API_KEYS_FILE"].startswith("/etc/dermserve/")
    assert not [name for name in environment if re.search("PASSWORD$|SECRET$|_KEY$|TOKEN$", name)]


def test_bases_are_named_in_full_and_by_a_tag():
    assert re.findall(r"^ARG PYTHON_IMAGE=(.+)$", DOCKERFILE, re.MULTILINE) == ["docker.io/library/python:3.11-slim"]
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${PYTHON_IMAGE}", "base", "scratch"}


def test_what_is_installed_is_what_a_lock_names_by_its_hash():
    installs = re.findall(r"install .*?requirement \S+", DOCKERFILE, re.DOTALL)

    assert len(installs) == DOCKERFILE.count("-m pip")
    for install in installs:
        assert all(flag in install for flag in ("--require-hashes", "--no-deps", "--only-binary=:all:", "/build/"))


def test_only_what_is_listed_is_sent_to_a_build():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    listed = [line.removeprefix("!") for line in lines if line.startswith("!")]

    assert lines[0] == "**"
    sources = [name for names in re.findall(r"^COPY ([^-\n]+) \S+$", DOCKERFILE, re.MULTILINE) for name in names.split()]
    assert {name.partition("/")[0] for name in listed if "*" not in name} == {name.partition("/")[0] for name in sources}
    assert not {"tests", "runs", ".git", "requirements", "scripts", "docs", "web"} & set(listed)


def _our_version():
    return re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
