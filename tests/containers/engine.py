"""podman as these tests use it: with a configuration of their own, and so that nothing but the base image stays behind."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.containers import stand_in
from tests.processes import ROOT

OFFICIAL = "docker.io/library/python:3.11-slim"
PULL_TIMEOUT_S = 60
BUILT = ("gateway", "training", "models", "loadtests")

# The limits of files and processes are below what some machines allow a container by default, and above what ours need.
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=9000:9000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

READ_ONLY = ("--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:size=64m,mode=1777", "--cap-drop=ALL")
"""As the images are meant to be run."""

ONCE_TIMEOUT_S = 300
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)[:12]
"""The same in all processes of one run of pytest, so that they share what one of them has built."""


class Engine:
    """Runs podman; everything that it prints is in the failure."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        configuration = folder / "containers.conf"
        # crun refuses machines with both kinds of cgroups.
        runtime = 'runtime = "runc"\n' if shutil.which("runc") else ""
        configuration.write_text(CONFIGURATION + runtime)
        self.environment = os.environ | {"CONTAINERS_CONF": str(configuration), "VENV_TEST": sys.prefix}

    def __call__(self, *command: str, fails: bool = False, timeout_s: float = 120) -> str:
        """What podman prints, both of its outputs if it is expected to fail."""
        done = self.run(["podman", *command], timeout_s)
        assert (done.returncode != 0) == fails, f"podman {' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr if fails else done.stdout.strip()

    def once(self, image: str, *command: str, flags: Sequence[str] = (), fails: bool = False) -> str:
        """What a command in a container of its own prints; without a network, and ended by podman if it hangs."""
        limits = ["--rm", "--network=none", f"--timeout={ONCE_TIMEOUT_S}"]
        return self("run", *limits, *flags, image, *command, fails=fails, timeout_s=ONCE_TIMEOUT_S + 30)

    def run(self, command: Sequence[str], timeout_s: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def has(self, image: str) -> bool:
        return self.run(["podman", "image", "exists", image]).returncode == 0

    def inspect(self, kind: str, name: str) -> dict:
        return json.loads(self(kind, "inspect", name))[0]

    @contextmanager
    def container(self, image: str, *command: str, flags: Sequence[str] = ()) -> Iterator[str]:
        """A container in the background. Gives its id."""
        identifier = self("run", "--detach", *flags, image, *command)
        try:
            yield identifier
        finally:
            self("rm", "--force", "--time", "0", identifier)

    @contextmanager
    def files(self, image: str) -> Iterator[Path]:
        """A folder with an image's files."""
        identifier = self("create", image, "/nothing")
        try:
            yield Path(self("mount", identifier))
        finally:
            self("rm", "--force", identifier)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """One process of this machine at a time."""
    with Path(tempfile.gettempdir(), f"dermserve-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_base(engine: Engine) -> str:
    """The official image if it is here or can be fetched, otherwise a stand-in, which is made once and kept."""
    recipe = hashlib.sha256(Path(stand_in.__file__).read_bytes()).hexdigest()[:12]
    version = ".".join(map(str, sys.version_info[:3]))
    ours = f"localhost/dermserve-tests/python-stand-in:{version}-{recipe}"
    with alone("base-image"):
        if engine.has(ours):
            return ours
        if engine.has(OFFICIAL):
            return OFFICIAL
        pull = engine.run(["timeout", str(PULL_TIMEOUT_S), "podman", "pull", "--quiet", OFFICIAL], PULL_TIMEOUT_S + 10)
        if pull.returncode == 0:
            return OFFICIAL
        stand_in.import_stand_in(ours, engine)
        return ours


def image(name: str) -> str:
    return f"localhost/{RUN}/dermserve/{name}:test"


def build(engine: Engine, base: str) -> None:
    """By scripts/images.sh, from wheels that lie here: the builds themselves reach no network."""
    with alone(RUN):
        if all(engine.has(image(name)) for name in BUILT):
            return
        wheels = engine.folder / "wheels"
        for lock in ("gateway", "serving", "load"):
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--require-hashes", "--only-binary=:all:", "--dest", str(wheels), "--requirement"]
            done = engine.run([*command, f"requirements/{lock}.txt"], timeout_s=600)
            assert done.returncode == 0, done.stdout + done.stderr
        pip = engine.folder / "pip.conf"
        pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        # Without layers of their own for each step nothing is left over when the images go.
        flags = ["--layers=false", "--network=none", f"--volume={wheels}:/wheels:ro"]
        variables = {"ENGINE": "podman", "PYTHON_IMAGE": base, "PIP_CONF": str(pip)}
        variables |= {"REGISTRY": f"localhost/{RUN}", "TAG": "test"}
        done = engine.run(["scripts/images.sh", *BUILT, "--", *flags], timeout_s=900, **variables)
        shutil.rmtree(wheels)
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def interest() -> Iterator[Path]:
    """Held by each process that uses the images of this run. Gives the folder of the others'."""
    folder = Path(tempfile.gettempdir(), f"dermserve-images-{RUN}")
    folder.mkdir(exist_ok=True)
    mine = folder / str(os.getpid())
    mine.touch()
    yield folder
    mine.unlink()


def forget(engine: Engine, folder: Path) -> None:
    """Remove the images, unless another process of this run still uses them."""
    with alone(RUN):
        if any(folder.iterdir()):
            return
        folder.rmdir()
        for name in BUILT:
            engine.run(["podman", "rmi", "--force", image(name)])
    Path(tempfile.gettempdir(), f"dermserve-{RUN}.lock").unlink(missing_ok=True)
