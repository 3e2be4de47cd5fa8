"""`make up` and `make down` as a person runs them, over the tiny model; see docs/configuration.md for the variables."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.pictures import paint
from tests.processes import ROOT, free_port

# What a make around this test, or the person who started it, has set for themselves.
FOREIGN = ("MAKE", "MFLAGS", "PORT", "MODEL_", "RUN_DIR", "GATEWAY_", "VENV_")
# A stack that does not come up is given up by the script itself after 180 s.
pytestmark = pytest.mark.timeout(400)


class Stack:
    """A stack of its own: another folder for its state, other ports, the environment of the tests."""

    def __init__(self, folder: Path, model_base: Path) -> None:
        self.folder = folder
        self.port = free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        self._environment = environment | {
            "RUN_DIR": str(folder),
            "MODEL_BASE": str(model_base),
            "MODEL_SERVER": "embedded",
            "VENV_GATEWAY": sys.prefix,
            "VENV_SERVING": sys.prefix,
        }

    def make(self, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", target],
            cwd=ROOT,
            env=self._environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def up(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.make("up", **{"PORT": str(self.port)} | variables)

    def processes(self) -> list[int]:
        """Pids of what this stack started, found by the mark in their environment and not by a file."""
        mark = f"DERMSERVE_RUN={self.folder}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def leftovers(self) -> tuple[list[int], list[str]]:
        return self.processes(), [path.name for path in self.folder.glob("*") if path.suffix in (".pid", ".container")]


MODEL_SERVER_STAND_IN = """#!/bin/sh
exec {python} -m serving.embedded --host=127.0.0.1 "$@"
"""

# Does what `docker run` with these words would: host ports for the container's, host folders for its mounts.
CONTAINER_ENGINE_STAND_IN = """#!{python}
import os, pathlib, signal, sys
command, *words = sys.argv[1:]
state = pathlib.Path(__file__).parent
if command == "run":
    options, flags = words[:words.index(IMAGE)], words[words.index(IMAGE) + 1:]
    name = options[options.index("--name") + 1]
    folders = dict(word.rsplit(":", 2)[1::-1] for word in options if word.endswith(":ro"))
    ports = dict(word.split(":")[:0:-1] for word in options if word.startswith("127.0.0.1:"))
    models = pathlib.Path(folders["/config"], "models.config").read_text()
    (state / "models.config").write_text(models.replace("/models/lesion", folders["/models/lesion"]))
    flags = [flag.replace("=/config/models.config", f"={{state}}/models.config") for flag in flags]
    flags = [flag.replace("=/config", "=" + folders["/config"]) for flag in flags]
    flags += [f"--port={{ports['8500']}}", f"--rest_api_port={{ports['8501']}}", "--host=127.0.0.1"]
    (state / name).write_text(str(os.getpid()))
    os.execv({python!r}, [{python!r}, "-m", "serving.embedded", *flags])
elif command == "stop":
    os.kill(int((state / words[-1]).read_text()), signal.SIGTERM)
"""


@pytest.fixture
def install(tmp_path):
    """Put a program first on the PATH. Gives the PATH."""

    def install(name: str, text: str) -> str:
        programs = tmp_path / "bin"
        programs.mkdir(exist_ok=True)
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
        return f"{programs}:{os.environ['PATH']}"

    return install


@pytest.fixture(scope="module")
def stable_base(tmp_path_factory, make_version):
    """The tiny model under the number that the released configuration calls stable."""
    configured = (ROOT / "serving" / "config" / "models.config").read_text()
    base = tmp_path_factory.mktemp("models") / "lesion"
    make_version(base, int(re.search(r'key: "stable" value: (\d+)', configured)[1]))
    return base


@pytest.fixture
def stack(tmp_path, stable_base):
    stack = Stack(tmp_path / "run", stable_base)
    yield stack
    stack.make("down")
    for pid in stack.processes():
        os.kill(pid, signal.SIGKILL)


def classify(port, picture):
    return requests.post(
        f"http://127.0.0.1:{port}/api/v1/classifications", files={"file": ("x.png", picture)}, timeout=30
    ).json()


def test_up_classifies_and_down_leaves_nothing(stack):
    started = stack.up()

    assert started.returncode == 0, started.stdout + started.stderr
    assert f"http://127.0.0.1:{stack.port}" in started.stdout
    assert "make down" in started.stdout
    assert classify(stack.port, paint("malignant"))["label"] == "malignant"
    assert classify(stack.port, paint("out_of_scope"))["label"] == "none"

    before = sorted(stack.processes())
    again = stack.up()
    assert again.returncode == 0
    assert "already up" in again.stdout
    assert stack.up(PORT=str(free_port())).returncode != 0
    assert sorted(stack.processes()) == before

    stopped = stack.make("down")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert stack.leftovers() == ([], [])


def test_half_a_stack_is_stopped_and_started_whole(stack):
    assert stack.up().returncode == 0
    model_server = int((stack.folder / "model-server.pid").read_text())
    os.kill(model_server, signal.SIGKILL)

    again = stack.up()

    assert again.returncode == 0, again.stdout + again.stderr
    assert classify(stack.port, paint("benign"))["label"] == "benign"
    gateway = int((stack.folder / "gateway.pid").read_text())
    os.kill(gateway, signal.SIGKILL)
    assert stack.make("down").returncode == 0
    assert stack.leftovers() == ([], [])


def test_a_part_that_ends_while_starting_is_told_with_its_log(stack):
    started = stack.up(GATEWAY_WORKERS="many")

    assert started.returncode != 0
    assert "the gateway ended while starting" in started.stderr
    assert "GATEWAY_WORKERS" in started.stderr
    assert stack.leftovers() == ([], [])


def test_a_port_that_is_taken_is_told_with_the_way_out(stack):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        started = stack.up(PORT=str(other.getsockname()[1]))

    assert started.returncode != 0
    assert "is taken" in started.stderr
    assert "PORT=" in started.stderr
    assert stack.leftovers() == ([], [])


def test_ports_that_were_asked_for_do_not_meet_the_defaults_of_others(stack):
    """As with PORT=8500: the model server's default makes way."""
    started = stack.up(MODEL_PORT=str(stack.port))
    assert started.returncode != 0
    assert f"port {stack.port} is taken" in started.stderr

    free = run_bind_port("0", "1", "2")
    assert free.returncode == 0
    assert run_bind_port(free.stdout.strip()).returncode == 0
    assert run_bind_port(free.stdout.strip(), free.stdout.strip()).returncode != 0


def run_bind_port(*arguments):
    return subprocess.run(
        [sys.executable, "scripts/bind_port.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_an_empty_folder_of_versions_is_told_at_once(stack, tmp_path):
    started = stack.up(MODEL_BASE=str(tmp_path))

    assert started.returncode != 0
    assert re.search(rf"no version \d+ of the model in {tmp_path}", started.stderr)


def test_a_model_server_on_the_path_comes_first(stack, install):
    path = install("tensorflow_model_server", MODEL_SERVER_STAND_IN.format(python=sys.executable))

    started = stack.up(MODEL_SERVER="", PATH=path)

    assert started.returncode == 0, started.stdout + started.stderr
    assert "model server: tensorflow_model_server" in started.stdout
    assert "open on every interface" in started.stdout
    assert classify(stack.port, paint("malignant"))["label"] == "malignant"
    assert stack.make("down").returncode == 0
    assert stack.leftovers() == ([], [])


def test_a_container_serves_when_asked_for(stack, install):
    image = re.search(r"^image=(\S+)$", (ROOT / "scripts" / "up.sh").read_text(), re.MULTILINE)[1]
    text = CONTAINER_ENGINE_STAND_IN.format(python=sys.executable).replace("IMAGE", repr(image))
    path = install("docker", text)

    started = stack.up(MODEL_SERVER="docker", PATH=path)

    assert started.returncode == 0, started.stdout + started.stderr
    assert "model server: docker" in started.stdout
    assert classify(stack.port, paint("malignant"))["label"] == "malignant"
    assert stack.make("down").returncode == 0
    assert stack.leftovers() == ([], [])


def test_a_container_engine_that_does_not_answer_is_told(stack, install):
    path = install("docker", "#!/bin/sh\nexit 1\n")
    install("podman", "#!/bin/sh\nexit 1\n")

    started = stack.up(MODEL_SERVER="docker", PATH=path)

    assert started.returncode != 0
    assert "docker or podman" in started.stderr


def test_a_pid_file_of_another_life_is_not_believed(stack):
    """After a restart of the machine the number may be a stranger's."""
    stack.folder.mkdir()
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as stranger:
        (stack.folder / "gateway.pid").write_text(f"{stranger.pid}\n")

        stopped = stack.make("down")

        assert stranger.poll() is None
        stranger.kill()
    assert "not running" in stopped.stdout
    assert stack.leftovers() == ([], [])
