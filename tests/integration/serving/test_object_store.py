"""Versions in an object store, over HTTP: moto's server answers, and a test can step in before it does."""

import dataclasses
import os
import resource
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import boto3
import pytest
from moto.core import DEFAULT_ACCOUNT_ID, enable_iam_authentication
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

from serving.__main__ import main
from serving.models_config import Deployment, read_models_config
from serving.object_store import ObjectStore
from serving.release import ReleaseError, publish
from tests.metadata import METADATA
from tests.processes import ROOT, free_port, running

NUMBERS = count(1)
SUMS = "assets.extra/SHA256SUMS"
WEIGHTS = "variables/variables.data-00000-of-00001"

# The init container's environment: what requirements/release.txt does not name cannot be imported.
SMALL = """
import importlib.metadata, re, runpy, sys
locked = set(re.findall("^([a-z0-9.-]+)==", open("requirements/release.txt").read(), re.MULTILINE))
for module, owners in importlib.metadata.packages_distributions().items():
    if not locked & {re.sub("[-_.]+", "-", owner).lower() for owner in owners}:
        sys.modules[module] = None
sys.argv[0] = "serving"
runpy.run_module("serving", run_name="__main__", alter_sys=True)
"""


class Gate:
    """In front of moto: keeps what was asked, and asks a test before moto answers.

    `before(method, name)` may do anything, or return a status to answer with; `name` is the object's, without the bucket.
    """

    def __init__(self):
        self.asked = []
        self.before = None
        self._moto = DomainDispatcherApplication(create_backend_app)
        # A store answers conditional writes one after another; moto's threads alone do not.
        self._one_at_a_time = threading.Lock()

    def __call__(self, environ, start_response):
        method, name = environ["REQUEST_METHOD"], environ["PATH_INFO"].strip("/").partition("/")[2]
        self.asked.append((method, name))
        status = self.before(method, name) if self.before else None
        if status:
            start_response(status, [("Content-Type", "application/xml")])
            return [b"<Error><Code>Refused</Code><Message>not today</Message></Error>"]
        with self._one_at_a_time:
            return [b"".join(self._moto(environ, start_response))]


@pytest.fixture(scope="module")
def server():
    gate = Gate()
    server = make_server("127.0.0.1", 0, gate, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield gate, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def environment(server, monkeypatch):
    """The variables of this process, and of those it starts: nothing of the machine's own, and nothing asked of a cloud."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    variables = {
        "AWS_ENDPOINT_URL": server[1],
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def gate(server, environment):
    server[0].asked.clear()
    yield server[0]
    server[0].before = None


class Store:
    """The versions in a bucket of their own, and a client that does to them what it is told."""

    def __init__(self, client):
        self._client, self._bucket = client, f"models-{next(NUMBERS)}"
        self.url = f"s3://{self._bucket}/lesion"
        client.create_bucket(Bucket=self._bucket)

    def publish(self, candidate):
        return ObjectStore(self.url).publish(candidate)

    def names(self):
        return {found["Key"] for found in self._client.list_objects_v2(Bucket=self._bucket)["Contents"]}

    def put(self, key, body):
        self._client.put_object(Bucket=self._bucket, Key=key, Body=body)

    def put_as_it_is(self, key):
        """A client would take `..` out of a name before it sends it."""
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(self._bucket, key, b"hostile")

    def copy(self, key, target):
        self._client.copy_object(Bucket=self._bucket, Key=target, CopySource={"Bucket": self._bucket, "Key": key})

    def delete(self, key):
        self._client.delete_object(Bucket=self._bucket, Key=key)


@pytest.fixture
def store(gate):
    client = boto3.Session().client("s3")
    made = Store(client)
    gate.asked.clear()
    yield made
    client.close()


@pytest.fixture
def candidate(tmp_path):
    return make_candidate(tmp_path / "candidate", b"graph")


@pytest.fixture
def config(tmp_path):
    """A models.config that lists version 1."""
    path = tmp_path / "models.config"
    path.write_text(str(Deployment("/models/lesion", frozenset({1}), {"stable": 1, "canary": 1}).to_message()))
    return path


@pytest.fixture
def fetch(store, tmp_path, config, capsys):
    """Fetch in this process. Gives the exit code and the error."""

    def run():
        capsys.readouterr()
        code = main(["fetch", store.url, str(tmp_path / "base"), "--config", str(config)])
        return code, capsys.readouterr().err

    return run


def make_candidate(folder, graph, version=1):
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "variables").mkdir()
    (folder / "saved_model.pb").write_bytes(graph)
    (folder / WEIGHTS).write_bytes(b"weights of " + graph)
    (folder / "assets.extra" / "metadata.json").write_text(dataclasses.replace(METADATA, version=version).to_json())
    return folder


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def serving(*arguments, program=("-m", "serving"), timeout=60, **options):
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )


def test_a_version_comes_back_as_it_was_published(candidate, gate, store, tmp_path, fetch, capsys):
    # More than is downloaded in one request.
    (candidate / WEIGHTS).write_bytes(os.urandom(9 << 20))
    assert main(["publish", "--files-only", str(candidate), store.url]) == 0
    assert capsys.readouterr().out == f"{store.url}/1\n"
    written = [name for method, name in gate.asked if method == "PUT"]
    assert fetch() == (0, "")

    # As a folder would hold it, checksums included.
    publish(candidate, tmp_path / "folder")
    assert files(tmp_path / "base") == files(tmp_path / "folder")
    assert (tmp_path / "base" / "1").stat().st_mode & 0o777 == 0o755
    assert written[-1] == f"lesion/1/{SUMS}"
    assert len(written) == len(files(tmp_path / "base"))


@pytest.mark.timeout(600)
def test_the_released_version_is_loaded_before_it_is_uploaded_and_fetched_without_tensorflow(store, tmp_path):
    config = ROOT / "serving/config/models.config"
    released = ROOT / "serving/models/lesion" / str(read_models_config(config).labels["stable"])

    published = serving("publish", released, store.url, timeout=600)
    assert published.returncode == 0, published.stderr
    assert published.stdout.startswith(f"{store.url}/{released.name}; it keeps the contract")

    fetched = serving("fetch", store.url, tmp_path / "base", "--config", config, program=("-c", SMALL))
    assert (fetched.returncode, fetched.stderr) == (0, "")
    assert files(tmp_path / "base" / released.name) == files(released)
    # Otherwise the environment would prove nothing.
    assert "needs TensorFlow" in serving("publish", released, tmp_path / "elsewhere", program=("-c", SMALL)).stderr


def test_a_candidate_that_does_not_load_is_not_uploaded(candidate, store, gate):
    refused = serving("publish", candidate, store.url)

    assert refused.returncode == 1
    assert "cannot be served" in refused.stderr
    assert {method for method, _ in gate.asked} == {"GET"}


def test_an_unfinished_upload_is_not_fetched_and_the_next_takes_it_over(candidate, gate, store, tmp_path, fetch):
    (candidate / "left_over").write_text("of an older export")
    gate.before = lambda method, name: "403 Forbidden" if (method, name) == ("PUT", f"lesion/1/{SUMS}") else None
    assert main(["publish", "--files-only", str(candidate), store.url]) == 1
    gate.before = None
    assert "lesion/1/left_over" in store.names()
    assert f"lesion/1/{SUMS}" not in store.names()

    code, error = fetch()
    assert code == 1
    assert "unfinished" in error
    assert not (tmp_path / "base").exists()

    shutil.rmtree(candidate)
    second = make_candidate(candidate, b"second graph")
    assert main(["publish", "--files-only", str(second), store.url]) == 0
    assert fetch() == (0, "")
    assert files(tmp_path / "base" / "1").keys() - {SUMS} == files(second).keys()
    assert (tmp_path / "base" / "1" / "saved_model.pb").read_bytes() == b"second graph"


@pytest.mark.parametrize(
    ("change", "name"),
    [("changed", "saved_model.pb"), ("added", "assets/new"), ("missing", "saved_model.pb"), ("not text", SUMS)],
)
def test_a_version_that_was_tampered_with_is_refused_and_named(candidate, store, tmp_path, fetch, change, name):
    store.publish(candidate)
    if change == "missing":
        store.delete(f"lesion/1/{name}")
    else:
        store.put(f"lesion/1/{name}", b"\xff\xfe\xfd\xfc\xfb")

    code, error = fetch()

    assert code == 1
    assert error.startswith(f"{store.url}/1: ")
    assert name in error
    assert error.count("\n") == 1
    assert list((tmp_path / "base").iterdir()) == []


def test_a_version_under_another_number_is_refused(candidate, store, tmp_path):
    store.publish(candidate)
    for key in store.names():
        store.copy(key, key.replace("/1/", "/7/"))

    with pytest.raises(ReleaseError, match="holds version 1"):
        ObjectStore(store.url).fetch(7, tmp_path / "base")
    assert list((tmp_path / "base").iterdir()) == []


@pytest.mark.parametrize("name", ["../2/saved_model.pb", "/etc/passwd", "variables//x", "variables/", "", "a\nb"])
def test_a_name_that_leads_elsewhere_is_refused(candidate, gate, store, tmp_path, fetch, name):
    store.publish(candidate)
    store.put_as_it_is(f"lesion/1/{name}")
    gate.asked.clear()

    code, error = fetch()

    assert code == 1
    assert repr(name) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "base").exists()
    assert gate.asked == [("GET", "")]


def test_a_name_that_leads_elsewhere_is_not_deleted_either(candidate, gate, store):
    store.put_as_it_is("lesion/1/../2/saved_model.pb")

    with pytest.raises(ReleaseError, match="no file of a version"):
        store.publish(candidate)
    assert "DELETE" not in {method for method, _ in gate.asked}


def test_what_is_there_and_whole_is_not_fetched_again(candidate, store, tmp_path, fetch, environment):
    store.publish(candidate)
    assert fetch() == (0, "")
    before = {path: path.stat().st_ino for path in (tmp_path / "base").rglob("*")}

    # The store is gone.
    environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert fetch() == (0, "")
    assert {path: path.stat().st_ino for path in (tmp_path / "base").rglob("*")} == before


def test_what_is_missing_is_fetched_beside_what_is_there(candidate, gate, store, tmp_path, config):
    publish(make_candidate(tmp_path / "second", b"second graph", version=2), tmp_path / "base")
    store.publish(candidate)
    config.write_text(str(Deployment("/models", frozenset({1, 2}), {"stable": 2, "canary": 1}).to_message()))
    gate.asked.clear()

    assert main(["fetch", store.url, str(tmp_path / "base"), "--config", str(config)]) == 0

    assert sorted(path.name for path in (tmp_path / "base").iterdir()) == ["1", "2"]
    assert not [name for _, name in gate.asked if name.startswith("lesion/2")]


def test_what_is_there_and_damaged_is_told_and_left(candidate, store, tmp_path, fetch):
    store.publish(candidate)
    fetch()
    graph = tmp_path / "base" / "1" / "saved_model.pb"
    graph.write_bytes(b"damaged")

    code, error = fetch()

    assert code == 1
    assert "saved_model.pb" in error
    assert graph.read_bytes() == b"damaged"


@pytest.mark.parametrize(
    ("url", "variables", "told"),
    [
        ("s3://no-such-bucket/lesion", {}, "NoSuchBucket"),
        ("{store}/elsewhere", {}, "no such version"),
        ("{store}", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "Unable to locate credentials"),
        ("{store}", {"AWS_SECRET_ACCESS_KEY": ""}, "credentials"),
        ("{store}", {"AWS_ENDPOINT_URL": "http://127.0.0.1:{closed}"}, "Could not connect to the endpoint"),
        ("{store}", {"AWS_ENDPOINT_URL": "nonsense"}, "nonsense"),
        ("{store}", {"AWS_PROFILE": "nobody"}, "nobody"),
        ("s3://Not_A_Bucket!/lesion", {}, "Invalid bucket name"),
        ("s3:/models/lesion", {}, "BUCKET/PREFIX"),
    ],
)
def test_what_stands_in_the_way_is_told_in_one_line(store, tmp_path, config, environment, url, variables, told):
    for name, value in variables.items():
        environment.setenv(name, value.replace("{closed}", str(free_port())))

    failed = serving("fetch", url.replace("{store}", store.url), tmp_path / "base", "--config", config)

    assert failed.returncode == 1
    assert told in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "base").exists()


def test_a_key_without_permission_is_told(candidate, store, tmp_path, config, environment):
    store.publish(candidate)
    iam = boto3.Session().client("iam", region_name="us-east-1")
    iam.create_user(UserName="without-policy")
    key = iam.create_access_key(UserName="without-policy")["AccessKey"]
    iam.close()
    environment.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    environment.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])

    with enable_iam_authentication():
        failed = serving("fetch", store.url, tmp_path / "base", "--config", config)

    assert failed.returncode == 1
    assert "AccessDenied" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_a_full_disk_is_told(candidate, store, tmp_path, config):
    (candidate / WEIGHTS).write_bytes(bytes(2 << 20))
    store.publish(candidate)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    failed = serving("fetch", store.url, tmp_path / "base", "--config", config, preexec_fn=limit)

    assert failed.returncode == 1
    assert f"{tmp_path}/base/1 was not written" in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert list((tmp_path / "base").iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(candidate, store, tmp_path, fetch):
    store.publish(candidate)
    (tmp_path / "base").write_text("a file")

    code, error = fetch()

    assert code == 1
    assert f"{tmp_path}/base cannot be written" in error
    assert error.count("\n") == 1


def test_a_stop_in_the_middle_leaves_nothing(candidate, gate, store, tmp_path, config):
    store.publish(candidate)
    reached, stopped = threading.Event(), threading.Event()

    def hold(method, name):
        if name.endswith(WEIGHTS):
            reached.set()
            stopped.wait(60)

    gate.before = hold
    command = [sys.executable, "-m", "serving", "fetch", store.url, str(tmp_path / "base"), "--config", str(config)]
    with running(command, tmp_path / "log") as program:
        assert reached.wait(60)
        [partial] = (tmp_path / "base").iterdir()
        assert partial.name.startswith("partial-")
        assert program.stop() != 0
        stopped.set()

    assert list((tmp_path / "base").iterdir()) == []


def test_a_number_that_is_taken_stays_as_it_is(candidate, gate, store, tmp_path, fetch, capsys):
    store.publish(candidate)
    (candidate / "saved_model.pb").write_bytes(b"another graph")
    gate.asked.clear()

    # Told before it would be loaded.
    assert main(["publish", str(candidate), store.url]) == 1
    assert "never overwritten" in capsys.readouterr().err
    with pytest.raises(ReleaseError, match="never overwritten"):
        store.publish(candidate)
    assert {method for method, _ in gate.asked} == {"GET"}
    assert fetch() == (0, "")
    assert (tmp_path / "base" / "1" / "saved_model.pb").read_bytes() == b"graph"


def test_of_two_who_publish_at_once_one_wins(gate, store, tmp_path, fetch):
    both_have_looked = threading.Barrier(2, timeout=60)

    def meet(method, name):
        both_have_looked.wait()
        gate.before = None

    gate.before = meet
    candidates = [make_candidate(tmp_path / graph, graph.encode()) for graph in ("first", "second")]
    with ThreadPoolExecutor() as pool:
        uploads = [pool.submit(store.publish, candidate) for candidate in candidates]
        errors = [upload.exception() for upload in uploads]

    [winner] = [candidate for candidate, error in zip(candidates, errors, strict=True) if error is None]
    [loss] = [error for error in errors if error is not None]
    assert isinstance(loss, ReleaseError)
    assert "somebody else is writing" in str(loss)
    assert fetch() == (0, "")
    assert (tmp_path / "base" / "1" / "saved_model.pb").read_bytes() == winner.name.encode()


def test_an_upload_that_another_took_over_does_not_win_too(candidate, gate, store, tmp_path, fetch):
    """It had all but its checksums up; whoever came then could not know that it was still at work."""
    other = make_candidate(tmp_path / "other", b"another graph")

    def overtake(method, name):
        if (method, name) == ("PUT", f"lesion/1/{SUMS}"):
            gate.before = None
            store.publish(other)

    gate.before = overtake

    with pytest.raises(ReleaseError, match="somebody else is writing"):
        store.publish(candidate)
    assert fetch() == (0, "")
    assert (tmp_path / "base" / "1" / "saved_model.pb").read_bytes() == b"another graph"


def test_an_upload_that_lost_an_object_on_the_way_says_so(candidate, gate, store, fetch):
    def delete(method, name):
        if (method, name) == ("PUT", f"lesion/1/{SUMS}"):
            gate.before = None
            store.delete("lesion/1/saved_model.pb")

    gate.before = delete

    with pytest.raises(ReleaseError, match="publish again"):
        store.publish(candidate)
    assert fetch()[0] == 1


def test_a_candidate_that_changes_while_it_is_uploaded_gets_no_checksums(candidate, gate, store, fetch):
    def change(method, name):
        if (method, name) == ("PUT", "lesion/1/saved_model.pb"):
            (candidate / WEIGHTS).write_bytes(b"later")

    gate.before = change

    with pytest.raises(ReleaseError, match="was changed while"):
        store.publish(candidate)
    assert "unfinished" in fetch()[1]


def test_a_store_without_conditional_writes_is_told(candidate, gate, store, capsys):
    gate.before = lambda method, name: "501 Not Implemented" if method == "PUT" else None

    assert main(["publish", "--files-only", str(candidate), store.url]) == 1
    error = capsys.readouterr().err
    assert "PutObject" in error
    assert error.count("\n") == 1
