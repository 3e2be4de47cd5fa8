"""compose.yaml, really run: the gateway's image and the model server, and a picture that goes through both.

The model server is the training image's, which stands in for TensorFlow Serving's: that one needs a registry.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import yaml

from gateway.portal import LANGUAGE_COOKIE
from tests import paced_server, processes
from tests.containers.engine import READ_ONLY, RUN
from tests.pictures import encode, paint, textured

# Whoever comes first waits for the builds.
pytestmark = pytest.mark.timeout(1200)

USER = 10001


@pytest.fixture(scope="module")
def keys(engine, images, tmp_path_factory):
    """A folder with a key file, and the key, both made by the gateway's image."""
    folder = tmp_path_factory.mktemp("keys")
    folder.chmod(0o777)
    create = ["python", "-m", "gateway.api_keys", "create", "--id", "portal", "--permissions", "classify", "read_metrics"]
    create += ["--days", "1", "--file", "/etc/dermserve/keys.json"]
    printed = engine.once(images("gateway"), *create, flags=[*READ_ONLY, f"--volume={folder}:/etc/dermserve"])
    return folder, printed.split()[-1]


@pytest.fixture(scope="module")
def stack(engine, images, keys, tmp_path_factory):
    """Address of the gateway that compose.yaml has started."""
    folder, port = tmp_path_factory.mktemp("compose"), processes.free_port()
    models = engine("create", images("models"), "/nothing")
    engine("cp", f"{models}:/models", str(folder))
    engine("rm", models)
    # Only what stands for what cannot be fetched here: the image, and the program in it.
    server = ["python", "-m", "serving.embedded", "--host=0.0.0.0"]
    services = {
        "serving": {"image": images("training"), "entrypoint": server, "restart": "no"},
        "gateway": {"image": images("gateway"), "restart": "no"},
    }
    override = folder / "override.yaml"
    override.write_text(yaml.safe_dump({"services": services}))
    compose = [sys.executable, "-m", "podman_compose", "--in-pod=0", "--project-name", f"dermserve-{RUN}"]
    compose += ["--file", "compose.yaml", "--file", str(override)]
    variables = {"DERMSERVE_KEYS": str(keys[0]), "DERMSERVE_MODELS": str(folder / "models/lesion"), "PORT": str(port)}

    def run(*command):
        done = engine.run([*compose, *command], **variables)
        return done.returncode, done.stdout + done.stderr

    try:
        code, output = run("up", "--detach", "--no-build")
        assert code == 0, output
        address = f"http://127.0.0.1:{port}"
        processes.wait_until(lambda: is_ready(address), timeout_s=300)
        yield address
    except AssertionError as error:
        raise AssertionError(f"{error}\n{run('logs')[1]}") from error
    finally:
        code, output = run("down", "--volumes", "--timeout", "20")
        assert code == 0, output


def is_ready(address):
    try:
        return requests.get(f"{address}/health/ready", timeout=10).ok
    except requests.RequestException:
        return False


def classify(address, key, data):
    headers = {"Authorization": f"Bearer {key}"}
    return requests.post(f"{address}/api/v1/classifications", headers=headers, files={"file": ("x", data)}, timeout=60)


def named(service):
    return f"dermserve-{RUN}_{service}_1"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "HEIF", "AVIF"])
def test_a_picture_goes_through_both_containers(stack, keys, format):
    answer = classify(stack, keys[1], encode(textured((400, 300)), format))

    assert answer.status_code == 200, answer.text
    assert answer.json()["label"] in ("benign", "malignant", "none")
    assert answer.json()["model"]["version"] == 3


@pytest.mark.parametrize(("data", "slug"), [(b"no picture", "not-an-image"), (b"", "no-picture")])
def test_what_is_no_picture_gets_its_problem(stack, keys, data, slug):
    answer = classify(stack, keys[1], data)

    assert answer.status_code in (400, 415, 422)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"].startswith("/problems/")


def test_nobody_is_let_in_without_a_key(stack):
    assert processes.post_picture(stack, paint()).status_code == 401


@pytest.mark.parametrize("language", ["en", "id"])
def test_pages_have_their_language(stack, language):
    """The image has the rules of these two languages only."""
    page = requests.get(f"{stack}/", cookies={LANGUAGE_COOKIE: language}, timeout=30)

    assert page.status_code == 200
    assert f'<html lang="{language}"' in page.text


PROBE = """
import errno, json, os
answers = {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups()}
for folder in ("/", "/app", "/etc/dermserve", "/opt/dermserve", "/tmp"):
    try:
        open(folder + "/probe", "w").close()
        answers[folder] = "written"
    except OSError as error:
        answers[folder] = errno.errorcode[error.errno]
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
answers["capabilities"] = int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapBnd"], 16)
answers["no new privileges"] = int(status["NoNewPrivs"])
print(json.dumps(answers))
"""


@pytest.mark.parametrize("service", ["gateway", "serving"])
def test_a_container_can_write_to_its_memory_only_and_may_nothing(engine, stack, service):
    seen = json.loads(engine("exec", named(service), "python", "-c", PROBE))

    assert (seen["uid"], seen["gid"]) == (USER, USER)
    assert seen["/tmp"] == "written"  # noqa: S108
    assert {seen["/"], seen["/app"], seen["/opt/dermserve"]} == {"EROFS"}
    assert seen["/etc/dermserve"] in ("EROFS", "ENOENT")
    assert seen["capabilities"] == 0
    assert seen["no new privileges"] == 1


@pytest.mark.parametrize("service", ["gateway", "serving"])
def test_the_health_check_of_the_compose_file_can_run(engine, stack, service):
    """podman schedules none without systemd, but runs it when asked."""
    engine("healthcheck", "run", named(service))


def test_the_model_server_cannot_be_reached_from_outside_and_reaches_nothing(engine, stack):
    serving = engine.inspect("container", named("serving"))

    assert not any((serving["HostConfig"]["PortBindings"] or {}).values())
    assert list(serving["NetworkSettings"]["Networks"]) == [f"dermserve-{RUN}_model"]
    assert engine.inspect("network", f"dermserve-{RUN}_model")["internal"] is True


def test_a_gateway_that_may_be_reached_by_others_does_not_start_without_identity(engine, images):
    output = engine.once(images("gateway"), flags=READ_ONLY, fails=True)

    assert "GATEWAY_IDENTITY" in output


def test_the_image_makes_the_tables_of_the_case_record(engine, images):
    """By Alembic, which finds its revisions as files."""
    flags = [*READ_ONLY, "--env=GATEWAY_BIND=127.0.0.1:8000", "--env=GATEWAY_CASES_DATABASE=sqlite:////tmp/cases.db"]
    engine.once(images("gateway"), "python", "-m", "gateway.cases", "upgrade", flags=flags)


def test_told_to_stop_it_answers_what_is_under_way_and_ends_with_zero(engine, images):
    port = processes.free_port()
    address = f"http://127.0.0.1:{port}"
    with paced_server.serving(paced_server.PacedServer()) as server, ThreadPoolExecutor(2) as pool:
        # On the host's own network, where the paced server is, and on loopback, where nobody is asked who they are.
        flags = ["--network=host", *READ_ONLY, f"--env=GATEWAY_BIND=127.0.0.1:{port}"]
        flags += [f"--env=GATEWAY_MODEL_SERVER=127.0.0.1:{server.port}", "--env=GATEWAY_GOLDEN_PERIOD_S=0"]
        with engine.container(images("gateway"), flags=flags) as identifier:
            processes.wait_until(lambda: is_ready(address), timeout_s=120)
            server.go.clear()
            answer = pool.submit(processes.post_picture, address, paint())
            processes.wait_until(lambda: server.pictures == 1)
            stopped = pool.submit(engine, "stop", "--time", "30", identifier)
            processes.wait_until(lambda: "Handling signal: term" in logs(engine, identifier))
            server.go.set()
            assert answer.result().status_code == 200
            stopped.result()
            assert engine.inspect("container", identifier)["State"]["ExitCode"] == 0


def logs(engine, identifier):
    done = engine.run(["podman", "logs", identifier])
    return done.stdout + done.stderr
