"""How rendered objects are broken: the table, and what its rows are written with."""

from tests.k8s.objects import find, pod_of, pods

MUTATIONS = []
"""Name of the check, what is done, and how."""


def breaks(check, what):
    """Register a mutation; it changes the objects that it is given."""

    def register(function):
        MUTATIONS.append((check, what, function))
        return function

    return register


def pod(objects, name):
    """By kind/name of its owner."""
    return next(pod for pod in pods(objects) if pod.name == name)


def settings(objects):
    """The gateway's ConfigMap."""
    name = pod_of(objects, "gateway").main["envFrom"][0]["configMapRef"]["name"]
    return find(objects, "ConfigMap", name)["data"]


def replace_argument(container, old, new):
    container["args"] = [argument.replace(old, new) for argument in container["args"]]


def drop(objects, kind, name):
    objects.remove(find(objects, kind, name))


def trigger(objects, name):
    return find(objects, "ScaledObject", name)["spec"]["triggers"][0]


def rules(objects, name, direction):
    return find(objects, "NetworkPolicy", name)["spec"][direction]


def without_port(objects, name, direction, port):
    given = rules(objects, name, direction)
    given[:] = [rule for rule in given if port not in [one["port"] for one in rule["ports"]]]


def simple(check, what, change):
    """For a change that is one expression."""
    breaks(check, what)(change)
