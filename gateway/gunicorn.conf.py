"""gunicorn's configuration: `gunicorn --config gateway/gunicorn.conf.py gateway.wsgi:app`."""

import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from gateway import metric_files
from gateway.lingering import MAX_LINGERING
from gateway.settings import IS_STOPPING, Settings
from serving.allocator import use_one_heap

# Each process counts for itself in files of this folder and /metrics adds them up; it must be set before the library is loaded.
_own_metrics_dir = None
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    _own_metrics_dir = tempfile.mkdtemp(prefix="dermserve-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _own_metrics_dir

from prometheus_client import multiprocess  # noqa: E402  (see above)

# Else uploads and pixels stay in heaps that never shrink: 121 instead of 73 MB a worker after large pictures. At the default of
# the second, a large upload's memory goes back to the kernel after every copy, a quarter of its processor time. One heap keeps
# that cheap: the interpreter's lock lets one thread allocate at a time anyway (make bench-gateway).
use_one_heap(mmap_threshold=1_000_000, trim_threshold=4_000_000)

# No core dump: it would hold pictures and keys. Not 0, which the kernel heeds only where dumps go to files; at 1 it hands none
# to a program (systemd-coredump, apport) either. Workers inherit it.
_hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (0, 0) if _hard == 0 else (1, 1))

_settings = Settings.from_env(os.environ)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Told to stop, it fails its readiness first and goes on; gunicorn's own would stop to accept in the same moment.

    Whoever balances the load needs a while to see it, and what it sends meanwhile is answered. Then nothing more is accepted,
    and everything that was is answered.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGTERM. In a signal's handler no thread can be started safely: the main loop does the rest."""
        self.method_queue.defer(self._drain, sig, frame)

    def _drain(self, sig: int, frame: FrameType | None) -> None:
        self.wsgi.config[IS_STOPPING] = True
        stop = threading.Timer(_settings.drain_s, super().handle_exit, (sig, frame))
        stop.daemon = True
        stop.start()


# For pages, probes and refusals: milliseconds each, readiness and the model's page at most two seconds.
_PAGE_THREADS = 8
# Refusing costs about two milliseconds: what waits in the kernel is answered within a quarter of a second for each process.
_BACKLOG = 128

bind = _settings.bind
workers = _settings.workers
# Threads wait for the model server most of the time; the heartbeat is theirs too, so a slow upload is not a dead worker.
worker_class = Worker
# A request that finds no thread waits where nobody sees it, probes included. So there is one for each picture that the
# process takes in (gateway.admission), for each refused upload that it throws away (gateway.lingering), and some beside them.
threads = _settings.threads + _settings.max_waiting + MAX_LINGERING + _PAGE_THREADS
# As many idle connections as busy ones; the rest is left to the other processes.
worker_connections = 2 * threads
backlog = _BACKLOG * workers
# Longer than proxies keep theirs (nginx and AWS 60 s): so the proxy closes, and no request meets a connection that we are just
# closing. At gunicorn's two seconds that became of a client that heeds our Retry-After on the same connection.
keepalive = 75
timeout = round(_settings.worker_timeout_s)
graceful_timeout = round(_settings.drain_s + _settings.request_budget_s)
# gRPC channels do not survive a fork: every worker imports the application itself.
preload_app = False
# The heartbeat file in memory: a slow disk must not look like a dead worker.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
# Nobody uses it, and two gateways of one user would fight over its path.
control_socket_disable = True
# The canonical line of gateway.logs replaces it.
accesslog = None


_NO_ROOM_PAUSE_S = 1.0


def post_fork(server: Any, worker: Any) -> None:
    """Take room for the worker's metrics; without any, end, and be started again until there is."""
    try:
        metric_files.reserve(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]), worker.pid)
    except OSError as error:
        server.log.error("no room for metrics: %s", error)  # noqa: TRY400  (once a second: one line, no traceback)
        time.sleep(_NO_ROOM_PAUSE_S)
        # Not as an exception, which gunicorn takes for a program that will never start, and ends them all.
        sys.exit(1)


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001  (gunicorn's hook)
    """Forget the gauges of a worker that is gone."""
    multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:  # noqa: ARG001  (gunicorn's hook)
    """Take our folder along."""
    if _own_metrics_dir:
        shutil.rmtree(_own_metrics_dir, ignore_errors=True)
