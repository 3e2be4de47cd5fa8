"""Starts Triton over a folder of versions: Triton's own binary, with its Python backend."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.processes import ROOT, Program, free_port, running

HERE = Path(__file__).parent
ENVIRONMENT = Path(os.environ.get("VENV_TRITON", ROOT / ".venvs" / "triton"))


@contextmanager
def triton(versions: Path, folder: Path, delay_s: float = 0.0) -> Iterator[tuple[Program, int]]:
    """Serve every version in a folder, each picture after a pause. Gives the program and its gRPC port.

    Args:
        versions: folder of SavedModels, N/.
        folder: empty, for Triton's own files.
        delay_s: of each picture.
    """
    packages = next(ENVIRONMENT.glob("lib/python3.*/site-packages"), None)
    assert packages, f"{ENVIRONMENT} holds no Triton; make test installs it"
    installed = packages / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    shutil.copytree(installed / "backends" / "python", backend)
    version = packages.parent.name.removeprefix("python")
    shutil.copy(installed / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    for model in ("lesion", "lesion_metadata"):
        repository = folder / "repository" / model
        shutil.copytree(HERE / model, repository)
        for served in versions.glob("[0-9]*"):
            (repository / served.name).mkdir()
            shutil.copy(HERE / "model.py", repository / served.name)
    port = free_port()
    command = [str(installed / "bin" / "tritonserver"), f"--model-repository={folder / 'repository'}"]
    command += [f"--backend-directory={folder / 'backends'}", "--grpc-address=127.0.0.1", f"--grpc-port={port}"]
    memory = f"triton-{port}-"
    command += ["--allow-http=false", "--allow-metrics=false", f"--backend-config=python,shm-region-prefix-name={memory}"]
    libraries = [packages / "nvidia_pytriton.libs", installed / "external_libs", Path(sys.base_prefix) / "lib"]
    environment = {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "TRITON_PACKAGES": str(packages),
        "TRITON_VERSIONS": str(versions),
        "TRITON_DELAY_S": str(delay_s),
    }
    with running(command, folder / "triton.log", **environment) as program:
        program.wait_for(lambda: "Started GRPCInferenceService" in program.output)
        try:
            yield program, port
        finally:
            kill(program)
            for left in Path("/dev/shm").glob(f"{memory}*"):  # noqa: S108  (where Triton puts it)
                left.unlink()


def kill(program: Program) -> None:
    """With its Python processes. Its own way out sometimes takes longer than anybody waits, and leaves them behind."""
    if program.process.poll() is None:
        family = psutil.Process(program.process.pid).children(recursive=True)
        program.process.kill()
        program.process.wait()
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
