"""The simulation's deployments with the settings that are released: the gateway's defaults and serving/config."""

import re
from pathlib import Path

from gateway.classify import MAX_DECODING
from gateway.settings import Settings
from scripts.capacity.simulation import Deployment

CONFIG = Path(__file__).parents[2] / "serving" / "config"


def released(file: str = "batching.config", **hosts: float | None) -> Deployment:
    """Of so many hosts; their other fields as configured."""
    text = re.sub(r"#.*", "", (CONFIG / file).read_text())
    batching = {name: int(value) for name, value in re.findall(r"(\w+) \{ value: (\d+) \}", text)}
    settings = Settings()
    return Deployment(
        **hosts,  # type: ignore[arg-type]
        workers=settings.workers,
        threads=settings.threads,
        max_waiting=settings.max_waiting,
        max_wait_s=settings.max_wait_s,
        max_decoding=MAX_DECODING,
        predict_timeout_s=settings.predict_timeout_s,
        max_batch_size=batching["max_batch_size"],
        batch_timeout_s=batching["batch_timeout_micros"] / 1e6,
        num_batch_threads=batching["num_batch_threads"],
        max_enqueued_batches=batching["max_enqueued_batches"],
    )
