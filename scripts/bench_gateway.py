"""`bench_gateway.py PYTHON`: what one gateway costs with the environment of PYTHON, with no model server behind it.

Prints, over several starts: seconds until the gateway answers, and each worker's resident memory after the start and after
decoding large pictures; then how many libraries of TensorFlow the workers have mapped. Linux only: it reads /proc.
"""

import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import requests
from PIL import Image

STARTS = 5
UPLOADS = 20
SETTLE_S = 2.0
PICTURE_SIZE = (4000, 3000)
# Nobody listens on port 1; a short timeout, because each picture is decoded first and then waits for a reconnection.
ENVIRONMENT = {"GATEWAY_BIND": "127.0.0.1:0", "GATEWAY_MODEL_SERVER": "127.0.0.1:1", "GATEWAY_PREDICT_TIMEOUT_S": "0.2"}


def main(python: str) -> None:
    """Run the starts and print what they gave."""
    picture = _picture()
    ready_s, idle_mb, busy_mb, mapped = [], [], [], []
    for _ in range(STARTS):
        with tempfile.TemporaryFile("w+") as log:
            started = time.perf_counter()
            process = subprocess.Popen(
                [python, "-m", "gunicorn", "--config", "gateway/gunicorn.conf.py", "gateway.wsgi:app"],
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                address = _wait(process, log)
                ready_s.append(time.perf_counter() - started)
                time.sleep(SETTLE_S)  # the first worker answers before the last one has loaded
                workers = psutil.Process(process.pid).children()
                idle_mb += [worker.memory_info().rss / 1e6 for worker in workers]
                for _ in range(UPLOADS):
                    answer = requests.post(f"{address}/api/v1/classifications", files={"file": picture}, timeout=60)
                    if answer.status_code != requests.codes.service_unavailable:
                        raise SystemExit(f"expected 503, got {answer.status_code}: {answer.text}")
                busy_mb += [worker.memory_info().rss / 1e6 for worker in workers]
                mapped += [path for worker in workers for path in _maps(worker) if "tensorflow" in path]
            finally:
                process.terminate()
                process.wait(timeout=60)
    megapixels = PICTURE_SIZE[0] * PICTURE_SIZE[1] / 1e6
    print(f"seconds until ready: {_spread(ready_s, 2)}")
    print(f"MB resident in a worker, idle: {_spread(idle_mb, 1)}")
    print(f"MB resident in a worker after {UPLOADS} pictures of {megapixels:.0f} megapixels: {_spread(busy_mb, 1)}")
    print(f"libraries of TensorFlow mapped: {len(mapped)}")


def _spread(values: list[float], digits: int) -> str:
    return f"median {statistics.median(values):.{digits}f}, worst {max(values):.{digits}f} (n {len(values)})"


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(PICTURE_SIZE, 60).convert("RGB").save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _wait(process: subprocess.Popen[bytes], log: io.TextIOBase) -> str:
    """The gateway's address, once it answers."""
    while process.poll() is None:
        log.seek(0)
        address = re.search(r"Listening at: (http://[\d.:]+)", log.read())
        if address:
            try:
                requests.get(f"{address[1]}/health/live", timeout=60).raise_for_status()
            except requests.ConnectionError:
                pass
            else:
                return address[1]
        time.sleep(0.01)
    log.seek(0)
    raise SystemExit(f"the gateway ended:\n{log.read()}")


def _maps(worker: psutil.Process) -> set[str]:
    return set(re.findall(r"/\S+", Path(f"/proc/{worker.pid}/maps").read_text()))


if __name__ == "__main__":
    main(sys.argv[1])
