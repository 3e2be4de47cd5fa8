"""Starts and stops the two processes of one machine: a model server and the gateway. Standard library only."""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / ".run"
STATE = RUN / "stack.json"
IMAGE = "tensorflow/serving:2.20.0"
CONTAINER = "dermserve-model"
READY_TIMEOUT_S = 180
"""Loading and warming the model up on a slow machine."""
STOP_TIMEOUT_S = 30
BATCHING = "batching.config"
MONITORING = "monitoring.config"


class StackError(Exception):
    """What a person has to know and do."""


def up(server: str, port: int, model_base: Path) -> None:
    """Start both, wait until the gateway says ready, print the address."""
    if STATE.exists():
        raise StackError(f"already up (see {STATE.relative_to(ROOT)}); stop it with: make down")
    if not _is_free(port):
        raise StackError(f"port {port} is taken by another program; choose another with: make up PORT=8080")
    if not any(child.name.isdigit() for child in model_base.glob("*")):
        raise StackError(f"{model_base} holds no version of the model")
    RUN.mkdir(exist_ok=True)
    grpc_port, rest_port = _free_port(8500), _free_port(8501)
    state: dict[str, int | str] = {}
    try:
        _start_model_server(state, server, grpc_port, rest_port, model_base.resolve())
        _start_gateway(state, port, grpc_port)
        _wait(state, f"http://127.0.0.1:{port}/health/ready")
    except BaseException:
        down()
        raise
    print(f"Dermserve is ready at http://127.0.0.1:{port} ({server} model server). Logs: .run/*.log. Stop it with: make down")


def down() -> None:
    """Stop both, gateway first, and forget them."""
    if not STATE.exists():
        print("nothing is running")
        return
    state = json.loads(STATE.read_text())
    for name in ("gateway", "model-server"):
        if name in state:
            _stop(name, state[name])
    if "container" in state:
        subprocess.run([state["container"], "stop", CONTAINER], check=False, stdout=subprocess.DEVNULL)
    STATE.unlink()
    print("stopped")


def _start_model_server(state: dict[str, int | str], server: str, grpc_port: int, rest_port: int, base: Path) -> None:
    config = RUN / "models.config"
    text = (ROOT / "serving" / "config" / "models.config").read_text()
    flags = [
        "--enable_batching=true",
        "--allow_version_labels_for_unavailable_models=true",
        "--grpc_max_threads=96",
        "--file_system_poll_wait_seconds=1",
    ]
    if server == "docker":
        engine = shutil.which("docker") or shutil.which("podman")
        if engine is None or subprocess.run([engine, "info"], check=False, capture_output=True).returncode:
            raise StackError(
                "MODEL_SERVER=docker needs a running docker or podman; without one use: make up MODEL_SERVER=embedded"
            )
        command = [engine, "run", "--detach", "--rm", "--name", CONTAINER]
        command += [f"--publish=127.0.0.1:{grpc_port}:8500", f"--publish=127.0.0.1:{rest_port}:8501"]
        command += [f"--volume={base}:/models/lesion:ro", f"--volume={ROOT / 'serving' / 'config'}:/config:ro", IMAGE]
        command += ["--model_config_file=/config/models.config", *flags]
        command += [f"--batching_parameters_file=/config/{BATCHING}", f"--monitoring_config_file=/config/{MONITORING}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        _remember(state, "container", engine)
        return
    config.write_text(text.replace("/models/lesion", str(base)))
    program = ["tensorflow_model_server"]
    if server == "embedded":
        program = [os.environ["SERVING_PYTHON"], "-m", "serving.embedded"]
    config_dir = ROOT / "serving" / "config"
    command = [*program, f"--port={grpc_port}", f"--rest_api_port={rest_port}", f"--model_config_file={config}", *flags]
    command += [f"--batching_parameters_file={config_dir / BATCHING}", f"--monitoring_config_file={config_dir / MONITORING}"]
    _start(state, "model-server", command, {"TF_CPP_MIN_LOG_LEVEL": "2"})


def _start_gateway(state: dict[str, int | str], port: int, grpc_port: int) -> None:
    settings = {"GATEWAY_BIND": f"127.0.0.1:{port}", "GATEWAY_MODEL_SERVER": f"127.0.0.1:{grpc_port}"}
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", "gateway/gunicorn.conf.py", "gateway.wsgi:app"]
    _start(state, "gateway", gunicorn, settings)


def _start(state: dict[str, int | str], name: str, command: list[str], environment: dict[str, str]) -> None:
    with (RUN / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _remember(state, name, process.pid)


def _remember(state: dict[str, int | str], name: str, value: int | str) -> None:
    state[name] = value
    STATE.write_text(json.dumps(state) + "\n")


def _wait(state: dict[str, int | str], address: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        for name in ("model-server", "gateway"):
            if name in state and os.waitpid(int(state[name]), os.WNOHANG)[0]:
                raise StackError(f"the {name} ended at once; the end of .run/{name}.log:\n{_tail(name)}")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    raise StackError(f"not ready after {READY_TIMEOUT_S} s; the end of .run/gateway.log:\n{_tail('gateway')}")


def _tail(name: str) -> str:
    return "\n".join((RUN / f"{name}.log").read_text(errors="replace").splitlines()[-20:])


def _stop(name: str, pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while _is_alive(pid):
            if time.monotonic() > deadline:
                print(f"{name} did not stop in {STOP_TIMEOUT_S} s and is killed")
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.1)
    except ProcessLookupError:
        return


def _is_alive(pid: int) -> bool:
    """A process that has ended but was not waited for does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port(wanted: int) -> int:
    if _is_free(wanted):
        return wanted
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Parse the command; 1 and a text on stderr when it did not work."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("up")
    command.add_argument("--model-server", choices=("embedded", "native", "docker"), required=True)
    command.add_argument("--port", type=int, required=True)
    command.add_argument("--model-base", type=Path, required=True)
    commands.add_parser("down")
    arguments = parser.parse_args()
    try:
        if arguments.command == "up":
            up(arguments.model_server, arguments.port, arguments.model_base)
        else:
            down()
    except (StackError, subprocess.CalledProcessError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
