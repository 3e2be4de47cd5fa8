"""The local overlay's Deployments, ConfigMaps, Secret and claim, run by `podman kube play`; a load test beside them.

podman is no Kubernetes. It ignores Services, probes over HTTP, priorities and policies, so some things stand in for the
cluster: both pods get their Services' names in the network, the claim's volume is filled from the models' image, and a port of
the gateway's container is published. It plays no Jobs: the load test's containers run one after another, as the Job has them.
"""

import base64
import json
import re
import shutil
import subprocess

import pytest
import requests
import yaml

from tests import processes
from tests.containers.engine import RUN
from tests.pictures import encode, textured
from tests.processes import BUSY, KUBECTL, ROOT

# Whoever comes first waits for the builds.
pytestmark = pytest.mark.timeout(1200)

OVERLAY = "k8s/overlays/local"
KEPT = {"ConfigMap", "Secret", "PersistentVolumeClaim"}
UNDERSTOOD = {*KEPT, "Deployment"}
PAUSE = "localhost/podman-pause"
"""What podman makes to hold a pod together."""

READY_TIMEOUT_S = 300
NETWORK = f"dermserve-kube-{RUN}"

AS_BUILT = re.compile(r"localhost/dermserve/(\w+):[\w.-]+")
"""What `make images` makes. The tests build beside it, under a registry and a tag of their own."""


@pytest.fixture(scope="module")
def key(engine, images, tmp_path_factory):
    """A copy of k8s/ in which the overlay has a key file, and the key."""
    folder = tmp_path_factory.mktemp("kube")
    shutil.copytree(ROOT / "k8s", folder / "k8s")
    overlay = folder / OVERLAY
    overlay.chmod(0o777)
    (overlay / "keys.json").unlink(missing_ok=True)
    create = ["python", "-m", "gateway.api_keys", "create", "--id", "local", "--permissions", "classify", "--days", "1"]
    flags = [f"--volume={overlay}:/overlay"]
    printed = engine.once(images("gateway"), *create, "--file", "/overlay/keys.json", flags=flags)
    return folder, printed.split()[-1]


@pytest.fixture(scope="module")
def documents(key, images):
    """The rendered overlay, by kind and the name that it has there."""
    found = [document for document in rendered(key[0] / OVERLAY) if document["kind"] in UNDERSTOOD]
    kept = {document["metadata"]["name"] for document in found if document["kind"] in KEPT}
    return {(document["kind"], document["metadata"]["name"]): localised(document, images, kept) for document in found}


def rendered(overlay):
    text = subprocess.run([KUBECTL, "kustomize", overlay], capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


def localised(node, images, kept):
    """With our images, and with names of this run's own for what podman keeps as volumes of the whole machine.

    The Secret becomes a ConfigMap: podman 4.3 mounts a Secret's values as they stand in the file, encoded.
    """
    if isinstance(node, list):
        return [localised(item, images, kept) for item in node]
    if not isinstance(node, dict):
        return node
    changed = {key: localised(value, images, kept) for key, value in node.items()}
    for key in {"name", "claimName", "secretName"} & set(node):
        if node[key] in kept and node.get("kind") != "Deployment":
            changed[key] = f"{node[key]}-{RUN}"
    if "image" in node:
        changed["image"] = images(AS_BUILT.fullmatch(node["image"])[1])
    if node.get("kind") == "Secret":
        decoded = {key: base64.b64decode(value).decode() for key, value in node["data"].items()}
        changed |= {"kind": "ConfigMap", "data": decoded}
        del changed["type"]
    if "secret" in node:
        changed["configMap"] = {"name": changed.pop("secret")["secretName"]}
    return changed


@pytest.fixture(scope="module")
def cluster(engine, images, documents, tmp_path_factory):
    """Address of the gateway."""
    folder, port = tmp_path_factory.mktemp("played"), processes.free_port()
    config = [document for (kind, _), document in documents.items() if kind in ("ConfigMap", "Secret")]
    played = []

    def play(name, *flags):
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump_all([*config, documents["Deployment", name]]))
        played.append(path)
        engine("kube", "play", *flags, str(path), timeout_s=300)

    had_pause = bool(engine("images", "--quiet", PAUSE))
    engine("network", "create", NETWORK)
    try:
        fill_volume(engine, images, documents["PersistentVolumeClaim", "models"]["metadata"]["name"], folder)
        play("serving", f"--network={NETWORK}:alias=serving")
        expose(documents["Deployment", "gateway"], port)
        play("gateway", f"--network={NETWORK}:alias=gateway")
        address = f"http://127.0.0.1:{port}"
        processes.wait_until(lambda: is_ready(address), timeout_s=READY_TIMEOUT_S)
        yield address
    except AssertionError as error:
        logs = [engine.run(["podman", "logs", name]) for name in containers(engine)]
        raise AssertionError("\n".join([str(error), *(done.stdout + done.stderr for done in logs)])) from error
    finally:
        for path in played:
            engine.run(["podman", "kube", "down", str(path)])
        for (kind, _), document in documents.items():
            if kind in KEPT:
                engine.run(["podman", "volume", "rm", "--force", document["metadata"]["name"]])
        engine.run(["podman", "network", "rm", "--force", NETWORK])
        if not had_pause:
            engine.run(["podman", "rmi", *engine("images", "--quiet", PAUSE).split()])


def fill_volume(engine, images, name, folder):
    engine("volume", "create", name)
    identifier = engine("create", images("models"), "/nothing")
    archive = folder / "models.tar"
    engine("cp", f"{identifier}:/models/.", str(folder / "models"))
    engine("rm", identifier)
    subprocess.run(["tar", "--create", "--file", archive, "--directory", folder / "models", "."], check=True)
    engine("volume", "import", name, str(archive))


def expose(deployment, port):
    """What a Service and `kubectl port-forward` do in a cluster."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["ports"][0] |= {"hostPort": port, "hostIP": "127.0.0.1"}


def is_ready(address):
    try:
        return requests.get(f"{address}/health/ready", timeout=10).ok
    except requests.RequestException:
        return False


def containers(engine):
    return engine(
        "ps", "--all", "--filter", "name=^(gateway|serving)-pod-0-(gateway|serving)$", "--format", "{{.Names}}"
    ).split()


def test_a_picture_is_classified(cluster, key):
    headers = {"Authorization": f"Bearer {key[1]}"}
    files = {"file": ("x", encode(textured((400, 300)), "JPEG"))}
    answer = requests.post(f"{cluster}/api/v1/classifications", headers=headers, files=files, timeout=60)

    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == {"name": "lesion", "version": 3}


def test_nobody_is_let_in_without_a_key(cluster):
    assert requests.post(f"{cluster}/api/v1/classifications", timeout=30).status_code == 401


def test_the_root_is_read_only_as_the_manifest_says(engine, cluster):
    names = containers(engine)

    assert len(names) == 2
    for name in names:
        assert engine.inspect("container", name)["HostConfig"]["ReadonlyRootfs"] is True


@pytest.fixture
def job(key):
    """The load test's, over the local overlay: its pod, and its settings."""
    overlay = key[0] / "k8s/overlays/load"
    overlay.mkdir()
    kustomization = {"kind": "Kustomization", "resources": ["../local"], "components": ["../../components/load-test"]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    found = {(document["kind"], document["metadata"]["name"]): document for document in rendered(overlay)}
    pod = found["Job", "load-test"]["spec"]["template"]["spec"]
    (settings,) = (source["configMapRef"]["name"] for source in pod["containers"][0]["envFrom"])
    return pod, found["ConfigMap", settings]["data"]


def test_a_load_test_runs_as_its_job_says(engine, images, cluster, key, job, tmp_path):
    pod, settings = job
    (tmp_path / "key").write_text(f"{key[1]}\n")
    tmp_path.chmod(0o755)
    # One port for everybody: the Service's is not here. Short, and beside other tests.
    settings |= {"LOCUST_HOST": "http://gateway:8000", "LOAD_DURATION": "10", "LOAD_THRESHOLDS": BUSY}
    volumes = {"tmp": f"dermserve-load-{RUN}", "key": str(tmp_path)}
    engine("volume", "create", volumes["tmp"])

    try:
        for container in [*pod["initContainers"], *pod["containers"]]:
            assert container["image"].startswith("dermserve/loadtests:")
            flags = [f"--volume={volumes[mount['name']]}:{mount['mountPath']}" for mount in container["volumeMounts"]]
            flags += [f"--env={name}={value}" for name, value in settings.items() if "envFrom" in container]
            flags += ["--rm", "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", f"--network={NETWORK}"]
            printed = engine("run", *flags, images("loadtests"), *container["command"], timeout_s=300)
        report = ["python", "-c", "print(open('/tmp/reports/report.json').read())"]
        told = json.loads(engine.once(images("loadtests"), *report, flags=[f"--volume={volumes['tmp']}:/tmp"]))
    finally:
        engine("volume", "rm", "--force", volumes["tmp"])

    assert told["holds"], printed
    assert "accepted" in {answer["outcome"] for answer in told["answers"]}
