import dataclasses
import io
import threading

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from gateway.admission import Admission
from gateway.app import create_app
from gateway.classify import Classifier
from gateway.errors import InvalidModelAnswer, ModelServerOverloaded, ModelServerUnavailable
from gateway.golden import GoldenCheck, Turn
from gateway.settings import Settings
from tests.metadata import METADATA, with_reference
from tests.pictures import paint
from tests.processes import wait_until
from tests.unit.gateway.test_app import FixedPredictor


class Recorded(FixedPredictor):
    """A version that has recorded a probability of 0.1 and a none score of 0."""

    def __init__(self, recorded=None, **kwargs):
        super().__init__(**kwargs)
        self.recorded = recorded or with_reference()
        self.seen = []

    def predict(self, image):
        self.seen.append(image)
        return super().predict(image)

    def metadata(self, version):
        return self.recorded


def checker(predictor, at_work=2, period_s=60.0, folder=None, is_stopping=lambda: False):
    admission = Admission(at_work, 0, 0.0)
    classifier = Classifier(predictor, admission, 50_000_000, 20.0)
    return GoldenCheck(classifier, [predictor], period_s, folder, is_stopping), admission


def value(name, **labels):
    return REGISTRY.get_sample_value(f"dermserve_gateway_{name}", labels) or 0.0


def check(predictor):
    with capture_logs() as lines:
        return checker(predictor)[0].check(predictor), lines


def test_the_recorded_answer_is_ok_and_its_time_is_kept():
    before = value("golden_checks_total", result="ok")

    assert check(Recorded(malignant=0.12, none_score=-0.25)) == ("ok", [])

    assert value("golden_checks_total", result="ok") == before + 1
    assert value("golden_last_ok_timestamp_seconds") > 1.7e9
    assert value("golden_difference", score="malignant_probability") == pytest.approx(0.02)
    assert value("golden_difference", score="none_score") == 0.25


@pytest.mark.parametrize("answer", [{"malignant": 0.16}, {"none_score": 0.6}, {"none_score": -0.6}, {"malignant": 0.04}])
def test_another_answer_differs_and_is_told(answer):
    last_ok = value("golden_last_ok_timestamp_seconds")

    result, lines = check(Recorded(**answer))

    assert result == "differs"
    assert [line["log_level"] for line in lines] == ["error"]
    assert value("golden_last_ok_timestamp_seconds") == last_ok


def test_without_a_recorded_answer_to_this_picture_an_answer_is_all_that_can_be_said():
    recorded = with_reference()
    of_another = dataclasses.replace(recorded, golden=dataclasses.replace(recorded.golden, picture_sha256="f" * 64))

    assert check(Recorded(METADATA)) == ("no_reference", [])
    assert check(Recorded(of_another)) == ("no_reference", [])


@pytest.mark.parametrize("error", [ModelServerUnavailable("x"), InvalidModelAnswer("x"), RuntimeError("x")])
def test_no_answer_is_a_failure_and_never_the_end(error):
    result, lines = check(Recorded(error=error))

    assert result == "failed"
    assert len(lines) == 1


def test_where_there_is_no_room_it_is_left_out_and_says_so():
    predictor = Recorded()
    golden, admission = checker(predictor)

    with admission.work():
        assert golden.check(predictor) == "skipped"
    assert not predictor.seen
    assert check(Recorded(error=ModelServerOverloaded("x"))) == ("skipped", [])


def test_it_goes_the_way_of_an_upload_and_is_not_counted_among_them():
    """The pixels that the model server gets are those of the same bytes, sent by a visitor."""
    predictor = Recorded()
    app = create_app(Settings(), predictor)
    golden = GoldenCheck(app.extensions["classifier"], [predictor], 60.0, None, lambda: False)
    visitor = app.test_client()
    counted = [
        ("outcomes_total", {"label": "benign", "reason": "", "model_version": "1"}),
        ("malignant_probability_count", {"model_version": "1"}),
        ("none_score_count", {"model_version": "1"}),
        ("admissions_total", {"result": "admitted"}),
    ]
    visitor.post("/api/v1/classifications", data={"file": (io.BytesIO(golden._picture), "x.png")})
    before = [value(name, **labels) for name, labels in counted]

    assert golden.check(predictor) == "ok"

    sent, checked = predictor.seen
    assert (sent == checked).all()
    assert [value(name, **labels) for name, labels in counted] == before
    visitor.post("/api/v1/classifications", data={"file": (io.BytesIO(paint()), "x.png")})
    assert [value(name, **labels) for name, labels in counted] == [number + 1 for number in before]


def test_of_all_processes_one_has_the_turn_until_it_ends(tmp_path):
    first, second = Turn(str(tmp_path)), Turn(str(tmp_path))

    assert first.is_ours()
    assert not second.is_ours()
    assert first.is_ours()
    first.close()
    assert second.is_ours()
    second.close()
    assert not list(tmp_path.iterdir())


def test_it_repeats_until_the_process_stops_and_gives_up_its_turn(tmp_path):
    is_stopping = threading.Event()
    predictor, other = Recorded(), Turn(str(tmp_path))
    golden, _ = checker(predictor, period_s=0.001, folder=str(tmp_path), is_stopping=is_stopping.is_set)

    golden.start()
    wait_until(lambda: len(predictor.seen) > 2)
    assert not other.is_ours()
    is_stopping.set()

    wait_until(other.is_ours)
    other.close()


def test_it_can_be_ended():
    golden, _ = checker(Recorded(), period_s=60.0)
    golden.start()
    golden.stop()

    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "golden"])


def test_each_version_is_asked_by_itself_and_the_canarys_share_does_not_choose(tmp_path):
    stable, canary, visitors = Recorded(), Recorded(), Recorded()
    done = threading.Event()
    classifier = Classifier(visitors, Admission(2, 0, 0.0), 50_000_000, 20.0)
    before = value("golden_checks_total", result="ok")
    golden = GoldenCheck(classifier, [stable, canary], 0.01, None, done.is_set)
    golden.start()

    wait_until(lambda: stable.seen and canary.seen and value("golden_checks_total", result="ok") >= before + 2)
    done.set()

    assert not visitors.seen


def test_a_folder_that_is_gone_is_nobodys_turn(tmp_path):
    assert not Turn(str(tmp_path / "gone")).is_ours()


def test_the_period_is_told_for_an_age_means_nothing_without_it():
    checker(Recorded(), period_s=3600.0)

    assert value("golden_period_seconds") == 3600.0
