"""Strict validation: Kubernetes' own kinds with the schemas of kubernetes-validate, the others with those in schemas/."""

import functools
import importlib.resources
import json
import re
from pathlib import Path

import yaml
from jsonschema.validators import Draft202012Validator
from referencing import Registry, Resource

VERSIONS = ("1.33.0", "1.34.0", "1.35.0", "1.36.0", "1.37.0")
"""Of Kubernetes: the newest five that kubernetes-validate carries. In the first of them a part of an image can be mounted."""

SCHEMAS = Path(__file__).parent / "schemas"


@functools.cache
def _definitions(version):
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    text = (folder / "_definitions.json").read_text()
    return folder, Resource.from_contents(json.loads(text)) @ Registry()


@functools.cache
def _validator_of_kind(kind, api_version, version):
    """As kubernetes_validate.validate() makes it, but once: the definitions alone are a megabyte."""
    folder, registry = _definitions(version)
    # rbac.authorization.k8s.io/v1 is rbac-v1 there.
    group = re.sub(r"^([^./]*)(?:[.][^/]*)?/", r"\1-", api_version)
    file = folder / f"{kind.lower()}-{group}.json"
    if not file.is_file():
        return None
    return Draft202012Validator(json.loads(file.read_text()), registry=registry)


@functools.cache
def _validator_of_custom_kind(kind):
    path = SCHEMAS / f"{kind}.yaml"
    return Draft202012Validator(yaml.safe_load(path.read_text())) if path.exists() else None


def problems(document, version):
    """What is wrong with an object for a version of Kubernetes. A kind that nobody has a schema of is wrong, too."""
    kind, api_version = document["kind"], document["apiVersion"]
    validator = _validator_of_kind(kind, api_version, version) or _validator_of_custom_kind(kind)
    name = f"{kind}/{document['metadata']['name']}"
    if validator is None:
        return [f"{name}: no schema of {api_version}"]
    found = [f"{name}: {error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    if kind == "TrainingRuntime" and not found:
        found += _problems_inside(document, version)
    return found


def _problems_inside(runtime, version):
    """The Jobs that Trainer will make of it."""
    jobs = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    made = [{"apiVersion": "batch/v1", "kind": "Job", **job["template"]} for job in jobs]
    return [text for job in made for text in problems(job | {"metadata": {**job["metadata"], "name": "inside"}}, version)]
