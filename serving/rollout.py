"""Moves labels between versions on running model servers, in steps of which none leaves a label without its version.

TensorFlow Serving checks a label before it loads anything, and remembers a configuration that it has refused. So versions are
loaded first, labels move when every server has them, and what is no longer needed is unloaded last. models.config is written
after each step: a server that restarts at any time comes back as the others are.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from serving.contract import CANARY_LABEL, LABELS, PREVIOUS_LABEL, STABLE_LABEL
from serving.model_server import ModelServer, ModelServerError, VersionState
from serving.models_config import Deployment, write_models_config
from serving.release import ReleaseError

_LOOK_UP_S: Final = 0.2

_STALE_S: Final = 5.0
"""For so long after a reload an error may be that of an earlier attempt: the server looks at its folders once a second."""

_PUT_BACK_S: Final = 5.0
"""How long a server that does not answer is asked again to take its old configuration back."""


def with_canary(current: Deployment, version: int) -> Deployment:
    """The version answers to `canary`, beside the stable one.

    Raises:
        ReleaseError: it is the stable one.
    """
    stable = current.labels[STABLE_LABEL]
    if version == stable:
        raise ReleaseError(f"version {version} is {STABLE_LABEL} already")
    return replace(current, versions=frozenset({stable, version}), labels={STABLE_LABEL: stable, CANARY_LABEL: version})


def promoted(current: Deployment, version: int | None = None) -> Deployment:
    """The version, or the canary, becomes `stable`; the one that was stays loaded as `previous`.

    Raises:
        ReleaseError: there is none to promote.
    """
    stable = current.labels[STABLE_LABEL]
    version = current.labels[CANARY_LABEL] if version is None else version
    if version == stable:
        raise ReleaseError(f"version {version} is {STABLE_LABEL} already; name the version to promote")
    labels = {STABLE_LABEL: version, CANARY_LABEL: version, PREVIOUS_LABEL: stable}
    return replace(current, versions=frozenset({stable, version}), labels=labels)


def rolled_back(current: Deployment) -> Deployment:
    """Without the canary where there is one, otherwise back to the previous version.

    Raises:
        ReleaseError: there is nothing to go back to.
    """
    stable = current.labels[STABLE_LABEL]
    if current.labels[CANARY_LABEL] == stable:
        if PREVIOUS_LABEL not in current.labels:
            raise ReleaseError(f"there is neither a {CANARY_LABEL} nor a {PREVIOUS_LABEL} version to go back from or to")
        stable = current.labels[PREVIOUS_LABEL]
    return replace(current, versions=frozenset({stable}), labels={STABLE_LABEL: stable, CANARY_LABEL: stable})


def roll_out(
    servers: Sequence[ModelServer], path: Path, before: Deployment, after: Deployment, wait_s: float, settle_s: float
) -> None:
    """Bring all servers from one deployment to another.

    Args:
        servers: every replica.
        path: of models.config, which all replicas start from.
        before: what it says.
        after: what it shall say.
        wait_s: how long a version may take to become available.
        settle_s: how long a version that has lost its label stays loaded: who just got an answer from it, asks for its
            metadata next.

    Raises:
        ReleaseError: what failed. Until labels have moved everywhere, everything is put back to what was before; so it is when
            the command is interrupted.
    """
    loaded = replace(before, versions=before.versions | after.versions)
    moved = replace(after, versions=loaded.versions)
    try:
        for server in servers:
            _heal(server, before, wait_s)
        for step in (loaded, moved):
            _take_step(servers, step, wait_s)
            write_models_config(path, step)
    except (ReleaseError, KeyboardInterrupt) as error:
        outcome = _put_back(servers, path, before)
        if isinstance(error, KeyboardInterrupt):
            raise ReleaseError(f"interrupted; {outcome}") from error
        raise ReleaseError(f"{error}; {outcome}") from error
    time.sleep(settle_s if after.versions != loaded.versions else 0)
    try:
        _take_step(servers, after, wait_s)
        write_models_config(path, after)
    except ReleaseError as error:
        raise ReleaseError(f"{error}; the labels have moved, but something is still loaded: {describe(moved)}") from error


def describe(deployment: Deployment) -> str:
    """One line for people."""
    labels = ", ".join(f"{label} {deployment.labels[label]}" for label in LABELS if label in deployment.labels)
    return f"{labels}; loaded: {', '.join(map(str, sorted(deployment.versions)))}"


def _heal(server: ModelServer, deployment: Deployment, wait_s: float) -> None:
    """Bring a server that differs from models.config to what it says; nothing is sent to one that does not.

    By way of both: a label that a server has cannot move to a version that it has not loaded yet.
    """
    own = server.labels()
    if own == deployment.labels and server.live() == deployment.versions:
        return
    both = deployment.versions.union(own.values())
    if own:
        _take_step([server], replace(deployment, versions=both, labels=dict(deployment.labels) | own), wait_s, is_checked=False)
    _take_step([server], replace(deployment, versions=both), wait_s)
    _take_step([server], deployment, wait_s)


def _take_step(servers: Sequence[ModelServer], step: Deployment, wait_s: float, *, is_checked: bool = True) -> None:
    known = [server.versions() for server in servers]
    for server in servers:
        server.reload(step)
    for server, states in zip(servers, known, strict=True):
        _wait_until_loaded(server, step, states, wait_s)
    if is_checked:
        for server in servers:
            _check_labels(server, step)
        _check_sameness(servers, step)


def _wait_until_loaded(server: ModelServer, deployment: Deployment, known: Mapping[int, VersionState], wait_s: float) -> None:
    """Until the server has exactly these versions: one that is about to go still says that it is available."""
    started = time.monotonic()
    while True:
        try:
            states, unreachable = server.versions(), ""
        except ModelServerError as error:
            if not error.may_pass:
                raise
            states, unreachable = {}, f": {error}"
        missing = sorted(
            version for version in deployment.versions if version not in states or not states[version].is_available
        )
        surplus = sorted(version for version, state in states.items() if state.is_live and version not in deployment.versions)
        if not missing and not surplus:
            return
        elapsed = time.monotonic() - started
        for version in missing:
            state = states.get(version)
            if state and state.error and (state != known.get(version) or elapsed > _STALE_S):
                raise ModelServerError(f"{server.address}: version {version} does not load: {state.error}")
        if elapsed > wait_s:
            waited_for = [
                *(f"{version} is not loaded" for version in missing),
                *(f"{version} is not gone" for version in surplus),
            ]
            raise ModelServerError(f"{server.address}: after {wait_s:g} s version {', '.join(waited_for)}{unreachable}")
        time.sleep(_LOOK_UP_S)


def _check_labels(server: ModelServer, deployment: Deployment) -> None:
    for label, version in deployment.labels.items():
        answered = server.metadata(label=label).version
        if answered != version:
            raise ModelServerError(f"{server.address}: version {answered} answers to {label}, expected {version}")


def _check_sameness(servers: Sequence[ModelServer], deployment: Deployment) -> None:
    """Replicas that read different folders could hold two versions under one number."""
    for version in sorted(deployment.versions):
        if len({server.metadata(version=version) for server in servers}) > 1:
            raise ReleaseError(f"the servers hold different versions {version}")


def _put_back(servers: Sequence[ModelServer], path: Path, deployment: Deployment) -> str:
    """On all servers, for one that refused remembers what it refused. Says how it went."""
    failures = []
    for server in servers:
        deadline = time.monotonic() + _PUT_BACK_S
        while True:
            try:
                server.reload(deployment)
            except ModelServerError as error:
                if error.may_pass and time.monotonic() < deadline:
                    time.sleep(_LOOK_UP_S)
                    continue
                failures.append(str(error))
            break
    try:
        write_models_config(path, deployment)
    except ReleaseError as failure:
        failures.append(str(failure))
    return f"NOT put back: {'; '.join(failures)}" if failures else f"put back to {describe(deployment)}"
