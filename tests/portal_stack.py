"""The portal over the tiny model for programs that are no test: two gateways, one open and one where people sign in."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import processes, signing_in

NO_PROVIDER = "http://127.0.0.1:9"
"""Nobody answers there; a gateway asks its provider only when somebody signs in."""


@contextmanager
def portal(folder: Path) -> Iterator[tuple[str, str]]:
    """Start everything. Gives the address of the open gateway, and of the one that asks who it is."""
    base = folder / "models" / "lesion"
    base.mkdir(parents=True)
    command = [sys.executable, "-m", "tests.tiny_model", str(base), "1"]
    subprocess.run(command, check=True, cwd=processes.ROOT, capture_output=True)
    (closed_folder := folder / "closed").mkdir()
    closed = signing_in.settings(closed_folder, NO_PROVIDER, processes.free_port()) | {"GATEWAY_WORKERS": "1"}
    with (
        processes.model_server(base, folder) as (_, port, _),
        processes.gateway(port, folder, GATEWAY_WORKERS="1") as (_, address),
        processes.gateway(port, closed_folder, **closed) as (_, sign_in),
    ):
        yield address, sign_in
