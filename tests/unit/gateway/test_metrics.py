import struct

import pytest
from prometheus_client import REGISTRY
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from gateway import metrics
from gateway.app import create_app
from gateway.settings import Settings
from tests.unit.gateway.test_app import FixedPredictor


@pytest.fixture
def starting(tmp_path, monkeypatch):
    """The file of a process that has made it and not given it its size."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    path = tmp_path / "counter_1.db"
    path.touch()
    return path


def test_a_process_that_starts_does_not_keep_the_page_from_the_others(starting, monkeypatch):
    pauses = []

    def pause(_):
        if not pauses:
            counts = MmapedDict(str(starting))
            counts.write_value(mmap_key("started", "started_total", [], [], "text"), 3.0, 0.0)
            counts.close()
        pauses.append(True)

    monkeypatch.setattr(metrics.time, "sleep", pause)

    assert b"started_total 3.0" in metrics.render()
    assert pauses == [True]


def test_a_file_that_stays_broken_is_an_error(starting, monkeypatch):
    monkeypatch.setattr(metrics.time, "sleep", lambda _: None)

    with pytest.raises(struct.error):
        metrics.render()


def test_a_stage_counts_the_processors_time_and_not_the_wait_even_when_it_fails(monkeypatch):
    def counted(name):
        return REGISTRY.get_sample_value(f"dermserve_gateway_stage_{name}", {"stage": "decode"}) or 0.0

    at_work, passed = counted("cpu_seconds_total"), counted("seconds_sum")
    monkeypatch.setattr(metrics.time, "thread_time", iter([5.0, 5.25]).__next__)

    with pytest.raises(ValueError, match="no picture"), metrics.stage("decode"):
        raise ValueError("no picture")

    assert counted("cpu_seconds_total") == at_work + 0.25
    assert passed < counted("seconds_sum") < passed + 0.25


def test_failures_are_at_0_before_the_first_one():
    metrics.REQUESTS.clear()

    create_app(Settings(), FixedPredictor())

    posts = ("/check", "/api/v1/classifications", "/api/v1/classifications:batch")
    for route, method in [("/health/ready", "GET"), *((route, "POST") for route in posts)]:
        for status in ("500", "503", "504"):
            labels = {"route": route, "method": method, "status": status}
            assert REGISTRY.get_sample_value("dermserve_gateway_requests_total", labels) == 0, labels
    # That somebody was ready is told by its series being there.
    ready = {"route": "/health/ready", "method": "GET", "status": "200"}
    assert REGISTRY.get_sample_value("dermserve_gateway_requests_total", ready) is None
