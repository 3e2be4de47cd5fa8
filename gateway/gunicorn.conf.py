"""gunicorn's configuration: `gunicorn --config gateway/gunicorn.conf.py gateway.wsgi:app`."""

import ctypes
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from gateway.settings import Settings

# Each process counts for itself in files of this folder and /metrics adds them up; it must be set before the library is loaded.
_own_metrics_dir = None
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    _own_metrics_dir = tempfile.mkdtemp(prefix="dermserve-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _own_metrics_dir

from prometheus_client import multiprocess  # noqa: E402  (see above)

# glibc raises this threshold to the largest buffer it has freed, and then keeps uploads and pixels of every thread in heaps
# that never shrink: 121 instead of 73 MB a worker after large pictures (make bench). Other libcs have no such call.
_M_MMAP_THRESHOLD = -3  # malloc.h
_libc = ctypes.CDLL(None)
if hasattr(_libc, "mallopt"):
    _libc.mallopt(_M_MMAP_THRESHOLD, 1_000_000)

_settings = Settings.from_env(os.environ)

bind = _settings.bind
workers = _settings.workers
# Threads wait for the model server most of the time; the heartbeat is theirs too, so a slow upload is not a dead worker.
worker_class = "gthread"
threads = _settings.threads
timeout = round(_settings.worker_timeout_s)
graceful_timeout = round(_settings.request_budget_s)
# gRPC channels do not survive a fork: every worker imports the application itself.
preload_app = False
# The heartbeat file in memory: a slow disk must not look like a dead worker.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
# Nobody uses it, and two gateways of one user would fight over its path.
control_socket_disable = True
# The canonical line of gateway.logs replaces it.
accesslog = None


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001  (gunicorn's hook)
    """Forget the gauges of a worker that is gone."""
    multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:  # noqa: ARG001  (gunicorn's hook)
    """Take our folder along."""
    if _own_metrics_dir:
        shutil.rmtree(_own_metrics_dir, ignore_errors=True)
