"""Rendered objects as the checks ask for them, and the register of the checks."""

from dataclasses import dataclass

CHECKS = {}
"""Name to function: objects -> what is wrong with them, a sentence each."""

LONG_RUNNING = ("Deployment", "StatefulSet")
NAME_LABEL = "app.kubernetes.io/name"


def check(function):
    """Register it."""
    CHECKS[function.__name__] = function
    return function


def failing(objects):
    """The names of the checks that object, with what they say."""
    found = {name: list(function(objects)) for name, function in CHECKS.items()}
    return {name: texts for name, texts in found.items() if texts}


@dataclass(frozen=True)
class Pod:
    """What a workload makes pods of."""

    owner: dict
    template: dict

    @property
    def name(self):
        return f"{self.owner['kind']}/{self.owner['metadata']['name']}"

    @property
    def runs_on(self):
        """Whether it is there for good."""
        return self.owner["kind"] in LONG_RUNNING

    @property
    def labels(self):
        return self.template["metadata"]["labels"]

    @property
    def app(self):
        return self.labels.get(NAME_LABEL)

    @property
    def spec(self):
        return self.template["spec"]

    @property
    def containers(self):
        return self.spec.get("initContainers", []) + self.spec["containers"]

    @property
    def main(self):
        return self.spec["containers"][0]

    def volume(self, name):
        """What is mounted under a name; a claim of a StatefulSet's own included."""
        own = [claim["metadata"]["name"] for claim in self.owner["spec"].get("volumeClaimTemplates", [])]
        if name in own:
            return {"name": name, "ownClaim": name}
        return next((volume for volume in self.spec.get("volumes", []) if volume["name"] == name), None)


def pods(objects):
    """Of every workload, jobs and what Trainer makes included."""
    for item in objects:
        kind, spec = item["kind"], item.get("spec", {})
        if kind in (*LONG_RUNNING, "Job"):
            yield Pod(item, spec["template"])
        elif kind == "CronJob":
            yield Pod(item, spec["jobTemplate"]["spec"]["template"])
        elif kind == "TrainingRuntime":
            for job in spec["template"]["spec"]["replicatedJobs"]:
                yield Pod(item, job["template"]["spec"]["template"])


def pod_of(objects, app):
    """The gateway's or the model server's."""
    return next(pod for pod in pods(objects) if pod.app == app and pod.runs_on)


def of_kind(objects, kind):
    return [item for item in objects if item["kind"] == kind]


def find(objects, kind, name):
    return next((item for item in of_kind(objects, kind) if item["metadata"]["name"] == name), None)


def matches(selector, labels):
    """A selector of labels; an empty one takes everything."""
    return selector.get("matchLabels", {}).items() <= labels.items()


def environment(objects, container):
    """What a container sees of ConfigMaps and of its own values."""
    seen = {}
    for source in [one for one in container.get("envFrom", []) if "configMapRef" in one]:
        seen |= (find(objects, "ConfigMap", source["configMapRef"]["name"]) or {"data": {}})["data"]
    return seen | {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}


def flags(container):
    """--name=value of a model server."""
    return dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
