import dataclasses

import grpc
import pytest

from serving.model_server import ModelServerError, VersionState
from serving.models_config import Deployment, locked, read_models_config, write_models_config
from serving.release import ReleaseError
from serving.rollout import promoted, roll_out, rolled_back, with_canary
from tests.metadata import METADATA
from tests.processes import ROOT

ONE = Deployment("/models/lesion", frozenset({4}), {"stable": 4, "canary": 4})


def test_a_canary_stands_beside_the_stable_version():
    deployment = with_canary(ONE, 5)

    assert deployment.versions == {4, 5}
    assert deployment.labels == {"stable": 4, "canary": 5}


def test_a_promoted_canary_leaves_the_stable_version_loaded_to_go_back_to():
    deployment = promoted(with_canary(ONE, 5))

    assert deployment.versions == {4, 5}
    assert deployment.labels == {"stable": 5, "canary": 5, "previous": 4}


def test_rolling_back_drops_the_canary_first_then_goes_to_the_previous_version():
    assert rolled_back(with_canary(ONE, 5)) == ONE
    assert rolled_back(promoted(ONE, 5)) == ONE
    # A canary beside a promoted version: the promoted one stays.
    assert rolled_back(with_canary(promoted(ONE, 5), 6)).labels == {"stable": 5, "canary": 5}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda: with_canary(ONE, 4), "version 4 is stable already"),
        (lambda: promoted(ONE), "version 4 is stable already"),
        (lambda: rolled_back(ONE), "neither a canary nor a previous"),
        (lambda: rolled_back(rolled_back(promoted(ONE, 5))), "neither a canary nor a previous"),
    ],
)
def test_a_change_that_is_none_is_refused(change, text):
    with pytest.raises(ReleaseError, match=text):
        change()


def test_the_configuration_is_written_as_it_is_read_and_keeps_its_comment(tmp_path):
    path = tmp_path / "models.config"
    path.write_text((ROOT / "serving/config/models.config").read_text())
    path.chmod(0o640)
    before = read_models_config(path)

    write_models_config(path, with_canary(before, 9))

    assert read_models_config(path) == with_canary(before, 9)
    assert path.read_text().splitlines()[:2] == (ROOT / "serving/config/models.config").read_text().splitlines()[:2]
    assert path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["models.config"]


MODEL = 'model_config_list { config { name: "lesion" base_path: "/m" model_platform: "tensorflow" %s } }'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model_config_list {", "Expected"),
        ("", r"configures \[\]"),
        (MODEL.replace('"lesion"', '"other"') % "", r"\['other'\]"),
        (MODEL % "model_version_policy { latest { num_versions: 2 } }", "does not list the versions"),
        (MODEL % "model_version_policy { specific { versions: 1 } }", "no version is called stable"),
        (
            MODEL % 'model_version_policy { specific { versions: 1 } } version_labels { key: "stable" value: 1 }',
            "called canary",
        ),
        (
            MODEL % 'model_version_policy { specific { versions: 1 } } version_labels { key: "stable" value: 2 } '
            'version_labels { key: "canary" value: 1 }',
            "stable is version 2, which is not loaded",
        ),
        (
            MODEL % 'model_version_policy { specific { versions: 1 } } version_labels { key: "beta" value: 1 } '
            'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 1 }',
            "'beta' is none of",
        ),
    ],
)
def test_a_configuration_that_a_server_would_serve_half_of_is_refused(tmp_path, text, reason):
    path = tmp_path / "models.config"
    path.write_text(text)

    with pytest.raises(ReleaseError, match=reason) as caught:
        read_models_config(path)
    assert str(path) in str(caught.value)


class Replica:
    """Takes a deployment at once, or fails at the reloads that it is told to; its versions carry these metadata."""

    def __init__(self, deployment=ONE, failing=(), error=None, **metadata):
        self.address, self.deployment = "replica", deployment
        self.reloads = 0
        self._failing = failing
        self._error = error or ModelServerError("no", grpc.StatusCode.INTERNAL)
        self._metadata = dataclasses.replace(METADATA, **metadata)

    def reload(self, deployment):
        self.reloads += 1
        if self.reloads in self._failing:
            raise self._error
        if not {version for label, version in deployment.labels.items() if self.deployment.labels.get(label) != version} <= (
            self.deployment.versions
        ):
            raise ModelServerError("a label on a version that is not available", grpc.StatusCode.FAILED_PRECONDITION)
        self.deployment = deployment

    def versions(self):
        return {version: VersionState("AVAILABLE") for version in self.deployment.versions}

    def live(self):
        return self.deployment.versions

    def labels(self):
        return dict(self.deployment.labels)

    def metadata(self, *, label=None, version=None):
        return dataclasses.replace(self._metadata, version=version or self.deployment.labels[label])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "models.config"
    path.write_text("")
    write_models_config(path, ONE)
    return path


def run(replicas, path, after, before=ONE):
    roll_out(replicas, path, before, after, wait_s=0.3, settle_s=0)


def test_a_change_reaches_all_replicas_and_the_file(path):
    replicas = [Replica(), Replica()]

    run(replicas, path, promoted(ONE, 5))
    run(replicas, path, rolled_back(promoted(ONE, 5)), before=promoted(ONE, 5))

    assert [replica.deployment for replica in replicas] == [ONE, ONE]
    assert read_models_config(path) == ONE
    # Load and move, then move and unload: a replica that is as configured is sent nothing before.
    assert replicas[0].reloads == 6


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_what_fails_on_one_replica_before_labels_have_moved_is_put_back_on_all(path, failing, error):
    """Loading, or moving the label, after the other has done it."""
    replicas = [Replica(), Replica(failing=[failing], error=error)]

    with pytest.raises(ReleaseError, match="put back to stable 4, canary 4; loaded: 4"):
        run(replicas, path, promoted(ONE, 5))

    assert [replica.deployment for replica in replicas] == [ONE, ONE]
    assert read_models_config(path) == ONE


def test_a_replica_that_cannot_be_put_back_is_named(path):
    replicas = [Replica(), Replica(failing=[2, 3])]

    with pytest.raises(ReleaseError, match="no; NOT put back: no"):
        run(replicas, path, promoted(ONE, 5))

    assert replicas[0].deployment == ONE


def test_a_replica_that_answers_a_moment_later_is_put_back(path):
    replicas = [Replica(failing=[3], error=ModelServerError("busy", grpc.StatusCode.UNAVAILABLE)), Replica(failing=[2])]

    with pytest.raises(ReleaseError, match="no; put back to stable 4"):
        run(replicas, path, promoted(ONE, 5))

    assert replicas[0].deployment == ONE


def test_labels_that_have_moved_everywhere_stay_when_the_unloading_fails(path):
    replicas = [Replica(promoted(ONE, 5)), Replica(promoted(ONE, 5), failing=[3])]

    with pytest.raises(ReleaseError, match="the labels have moved, but something is still loaded"):
        run(replicas, path, rolled_back(promoted(ONE, 5)), before=promoted(ONE, 5))

    assert {replica.deployment.labels["stable"] for replica in replicas} == {4}
    assert read_models_config(path).labels == ONE.labels


@pytest.mark.parametrize(
    "strange", [Deployment("/models/lesion", frozenset({2}), {"stable": 2, "canary": 2}), promoted(ONE, 2)]
)
def test_a_replica_that_differs_is_healed_by_way_of_both(path, strange):
    replica = Replica(strange)

    run([replica, Replica()], path, with_canary(ONE, 5))

    assert replica.deployment == with_canary(ONE, 5)


def test_a_version_that_does_not_load_or_does_not_go_is_waited_for_and_told(path):
    class Loading(Replica):
        def versions(self):
            return super().versions() | {5: VersionState("LOADING")}

    with pytest.raises(ReleaseError, match="version 5 is not loaded; put back"):
        run([Loading()], path, with_canary(ONE, 5))

    class Leaving(Replica):
        def versions(self):
            return super().versions() | {7: VersionState("UNLOADING")}

    with pytest.raises(ReleaseError, match="version 7 is not gone; put back"):
        run([Leaving()], path, with_canary(ONE, 5))


def test_the_error_of_an_earlier_attempt_is_not_taken_for_that_of_this_one(path):
    class Recovering(Replica):
        asked = 0

        def versions(self):
            self.asked += 1
            failed = {5: VersionState("END", "out of memory")} if self.asked < 4 else {}
            return super().versions() | failed

    replica = Recovering()
    run([replica], path, with_canary(ONE, 5))

    assert replica.asked >= 4


def test_replicas_that_hold_different_versions_under_one_number_are_put_back(path):
    """Each may read a folder of its own under the same path."""
    replicas = [Replica(), Replica(none_score="another")]

    with pytest.raises(ReleaseError, match="the servers hold different versions 4; put back to stable 4"):
        run(replicas, path, with_canary(ONE, 5))
    assert [replica.deployment for replica in replicas] == [ONE, ONE]


def test_two_commands_at_a_time_are_refused(path):
    with locked(path), pytest.raises(ReleaseError, match="another command is at work"), locked(path):
        pass
    with locked(path):
        pass
