"""A client of the API for Python programs. It imports nothing of the gateway: copy the file, it needs `requests` only.

    with Client("http://127.0.0.1:8000", api_key="...") as client:
        answer = client.classify(Path("lesion.jpg").read_bytes())

The models are those of docs/openapi.yaml; a test compares them.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal

import requests

MAX_PICTURES: Final = 16
"""Of a batch."""

_FIRST_PAUSE_S: Final = 0.5
_LAST_PAUSE_S: Final = 8.0


@dataclass(frozen=True)
class Probabilities:
    """Calibrated, sum 1."""

    benign: float
    malignant: float


@dataclass(frozen=True)
class Thresholds:
    """Of the version that answered."""

    malignant: float
    none: float


@dataclass(frozen=True)
class Model:
    """The version that answered."""

    name: str
    version: int


@dataclass(frozen=True)
class ActivationMap:
    """Where the model looked: the unit says what the numbers are."""

    grid: tuple[tuple[float, ...], ...]
    unit: str


@dataclass(frozen=True)
class Classification:
    """The answer for one picture. `none` is no all-clear: the reason says why there is no class."""

    id: str
    label: Literal["benign", "malignant", "none"]
    reason: Literal["out_of_scope", "uncertain"] | None
    probabilities: Probabilities
    none_score: float
    thresholds: Thresholds
    warnings: tuple[str, ...]
    model: Model
    activation_map: ActivationMap | None = None


class Problem(Exception):
    """What the gateway says is wrong (RFC 9457).

    Attributes:
        slug: the last part of its type.
        status: of HTTP.
        title: the same for every occurrence.
        detail: of this occurrence; may be empty.
        instance: names the request; whoever runs the gateway can find it by this.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.slug = str(document.get("type", "")).rpartition("/")[2] or "about:blank"
        self.status = int(document.get("status", 0))
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail", ""))
        self.instance = str(document.get("instance", ""))
        super().__init__(f"{self.status} {self.slug}: {self.detail or self.title} ({self.instance})")


class NotReachable(Exception):
    """No answer of the gateway, or none that it has written, until the deadline."""


class Client:
    """One connection to one gateway. Not for several threads at once."""

    def __init__(
        self,
        address: str,
        api_key: str = "",
        *,
        timeout_s: float = 25.0,
        deadline_s: float = 60.0,
        with_idempotency_keys: bool = False,
    ) -> None:
        """Nothing is sent yet.

        Args:
            address: of the gateway, https://host or http://127.0.0.1:port.
            api_key: sent as a bearer token; empty where none is asked for.
            timeout_s: for one answer; longer than the gateway's own budget of 20 s, or its reason would be lost.
            deadline_s: of one call, all its repetitions included.
            with_idempotency_keys: whether a picture that is sent again gets the same answer with the same id. The gateway needs
                Redis for it and refuses the key otherwise. Without one, a repeated picture is classified anew.
        """
        self._address = address.rstrip("/")
        self._timeout_s = timeout_s
        self._deadline_s = deadline_s
        self._with_keys = with_idempotency_keys
        self._session = requests.Session()
        self._session.headers["Accept"] = "application/json, application/problem+json"
        if api_key:
            self._session.auth = _Bearer(api_key)

    def __enter__(self) -> "Client":
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def classify(self, picture: bytes, *, with_map: bool = False) -> Classification:
        """Classify one picture.

        Raises:
            Problem: the gateway says what is wrong.
            NotReachable: it said nothing in time.
        """
        return _read_classification(self._post("/api/v1/classifications", [picture], with_map=with_map))

    def classify_batch(self, pictures: Sequence[bytes], *, with_map: bool = False) -> list[Classification | Problem]:
        """Classify up to 16 pictures at once. A picture that cannot be used has its problem in its place.

        Raises:
            Problem: the gateway says what is wrong with all of them.
            NotReachable: it said nothing in time.
        """
        answer = self._post("/api/v1/classifications:batch", pictures, with_map=with_map)
        return [_read_classification(item) if "label" in item else Problem(item) for item in answer["results"]]

    def _post(self, path: str, pictures: Sequence[bytes], *, with_map: bool) -> dict[str, Any]:
        end_s = time.monotonic() + self._deadline_s
        headers = {"Idempotency-Key": f'"{uuid.uuid4()}"'} if self._with_keys else {}
        pause_s = _FIRST_PAUSE_S
        told: Problem | None = None
        while True:
            failure: Problem | NotReachable
            try:
                response = self._session.post(
                    self._address + path,
                    params={"activation_map": "grid"} if with_map else {},
                    files=[("file", ("picture", picture)) for picture in pictures],
                    headers=headers,
                    timeout=max(min(self._timeout_s, end_s - time.monotonic()), 0.001),
                    allow_redirects=False,
                )
                document = _read_document(response)
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                # What the gateway has said before is more than that the last try was cut short.
                failure, asked_s = told or NotReachable(f"no answer of {self._address}: {error}"), 0.0
            else:
                if response.ok:
                    return document
                failure = told = Problem(document)
                asked_s = _retry_after_s(response)
                # Only what the gateway itself says will pass: it is overloaded, has no model, the first try is at work, or we
                # have asked too often. A wrong key (401) and a missing permission (403) stay as they are.
                if not asked_s:
                    raise failure
            wait_s = max(asked_s, pause_s)
            if time.monotonic() + wait_s >= end_s:
                raise failure
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)


class _Bearer(requests.auth.AuthBase):
    """A plain header would lose to what a .netrc has for this host."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


def _read_document(response: requests.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        document = None
    if response.is_redirect or not isinstance(document, dict):
        raise NotReachable(f"status {response.status_code} without a document of the gateway")
    return document


def _retry_after_s(response: requests.Response) -> float:
    """0 where a repetition is of no use. The gateway gives seconds; a date would be a proxy's."""
    given = response.headers.get("Retry-After", "")
    return float(given) if given.isdecimal() else 0.0


def _read_classification(document: dict[str, Any]) -> Classification:
    shown = document.get("activation_map")
    return Classification(
        id=document["id"],
        label=document["label"],
        reason=document["reason"],
        probabilities=Probabilities(**document["probabilities"]),
        none_score=document["none_score"],
        thresholds=Thresholds(**document["thresholds"]),
        warnings=tuple(document["warnings"]),
        model=Model(**document["model"]),
        activation_map=ActivationMap(tuple(map(tuple, shown["grid"])), shown["unit"]) if shown else None,
    )
