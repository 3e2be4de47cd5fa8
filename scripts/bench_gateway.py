"""`bench_gateway.py PYTHON`: what one gateway costs with the environment of PYTHON, with no model server behind it.

Prints, over several starts: seconds until the gateway answers, and each worker's resident memory after the start and after
decoding large pictures; then how many libraries of TensorFlow the workers have mapped; last, how long one thread takes from the
bytes of a picture to the model's input. Linux only: it reads /proc.
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

import numpy as np
import pillow_heif
import psutil
import requests
from PIL import Image, ImageChops

STARTS = 5
UPLOADS = 20
SETTLE_S = 2.0
PICTURE_SIZE = (4000, 3000)
SMALL_PICTURE_SIZE = (1024, 768)
DECODES = 100
NOISE = 8
"""Standard deviation, in grey levels."""

RESAMPLES = 2000
DECODING = """
import sys, time
from gateway.images import decode, model_input
from gateway.settings import Settings
picture = sys.stdin.buffer.read()
for _ in range(int(sys.argv[1])):
    started = time.perf_counter()
    model_input(decode(picture, Settings.max_picture_pixels))
    print((time.perf_counter() - started) * 1000)
"""
# Nobody listens on port 1; a short timeout, because each picture is decoded first and then waits for a reconnection.
ENVIRONMENT = {"GATEWAY_BIND": "127.0.0.1:0", "GATEWAY_MODEL_SERVER": "127.0.0.1:1", "GATEWAY_PREDICT_TIMEOUT_S": "0.2"}


def main(python: str) -> None:
    """Run the starts and print what they gave."""
    pillow_heif.register_heif_opener()
    picture = camera_picture(PICTURE_SIZE)
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
    for kind, size in (("JPEG", PICTURE_SIZE), ("JPEG", SMALL_PICTURE_SIZE), ("HEIF", PICTURE_SIZE)):
        encoded = camera_picture(size, kind)
        what = f"{kind} of {size[0]} x {size[1]} pixels, {len(encoded) / 1e6:.1f} MB"
        print(f"ms from the bytes to the model's input, {what}: {_decoding(python, encoded)}")


def _spread(values: list[float], digits: int) -> str:
    return f"median {statistics.median(values):.{digits}f}, worst {max(values):.{digits}f} (n {len(values)})"


def _decoding(python: str, picture: bytes) -> str:
    """Median, its 95 % interval (bootstrap) and the 95th percentile of milliseconds, in a process of the environment."""
    run = subprocess.run([python, "-c", DECODING, str(DECODES)], input=picture, capture_output=True, check=True)
    times_ms = np.array([float(line) for line in run.stdout.split()])
    medians = np.median(np.random.default_rng(1).choice(times_ms, (RESAMPLES, len(times_ms))), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    median, p95 = np.percentile(times_ms, (50, 95))
    return f"median {median:.1f} (95 % interval {low:.1f} to {high:.1f}), p95 {p95:.1f} (n {len(times_ms)})"


def camera_picture(size: tuple[int, int], kind: str = "JPEG") -> bytes:
    """Soft patches under the noise of a sensor: at 12 megapixels a JPEG of about 3 MB, as a telephone writes it."""
    rng = np.random.default_rng(1)
    patches = Image.fromarray(rng.integers(60, 200, (24, 32, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = Image.effect_noise(size, NOISE).convert("RGB")
    buffer = io.BytesIO()
    ImageChops.add(patches, noise, offset=-128).save(buffer, kind, quality=85)
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
