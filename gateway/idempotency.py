"""One answer for one Idempotency-Key, however often the request comes (draft-ietf-httpapi-idempotency-key-header).

Kept is the answer of a request that was met, as text and for a day. One that failed may be sent again with its key.
"""

import contextlib
import hashlib
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Final, Protocol

from gateway.errors import BadIdempotencyKey, IdempotencyNotConfigured, IdempotencyUnavailable

HEADER: Final = "Idempotency-Key"
REPLAYED_HEADER: Final = "Idempotency-Replayed"

_KEY: Final = re.compile(r'(?P<quote>"?)(?P<key>[A-Za-z0-9._~-]{8,128})(?P=quote)')
"""The draft's string in quotes; without them it is the same key, for many clients send it so."""

_CHUNK_BYTES: Final = 65_536


@dataclass(frozen=True)
class Claim:
    """A request that is at work under a key.

    Attributes:
        name: of the key, and of whose it is; a digest.
        fingerprint: of the request.
        token: of this attempt.
    """

    name: str
    fingerprint: str
    token: str


class Answers(Protocol):
    """Where answers are kept, for all processes."""

    def begin(self, claim: Claim) -> str | None:
        """Claim the key. None when it is free and now ours; otherwise the answer that is kept.

        Raises:
            IdempotencyKeyReused: its request was another.
            IdempotencyInProgress: its request is at work.
            IdempotencyUnavailable: nothing can be promised.
        """
        ...

    def keep(self, claim: Claim, answer: str) -> None:
        """Keep the answer.

        Raises:
            IdempotencyUnavailable: it is not kept.
        """
        ...

    def release(self, claim: Claim) -> None:
        """Give the key up without an answer.

        Raises:
            IdempotencyUnavailable: it stays claimed, for as long as a request can take.
        """
        ...


def read_key(header: str | None, answers: Answers | None) -> str | None:
    """The key of a request; None when it has none.

    Raises:
        IdempotencyNotConfigured: there is one, and nowhere to keep an answer.
        BadIdempotencyKey: it has another form.
    """
    if header is None:
        return None
    if answers is None:
        raise IdempotencyNotConfigured("without GATEWAY_REDIS_URL no answer is kept; send the request without Idempotency-Key")
    found = _KEY.fullmatch(header)
    if found is None:
        raise BadIdempotencyKey("an Idempotency-Key has 8 to 128 characters: letters, digits and . _ ~ -")
    return found["key"]


def claim(identity: str, key: str, form: Iterable[str], files: Iterable[IO[bytes]]) -> Claim:
    """What stands for the request: two have the same fingerprint if everything that makes their answers is the same.

    The key is part of the fingerprint, so that nobody can tell from what is kept that two people sent the same picture. What
    the multipart form looks like is no part of it: its boundary is another each time, and file names are nobody's business.

    Args:
        identity: whose key it is; others may have the same one.
        key: from `read_key`.
        form: address, and in which form the answer is wanted.
        files: the uploads; each is read to its end and wound back.
    """
    digests = [_digest(file) for file in files]
    fingerprint = hashlib.sha256("\n".join((identity, key, *form, *digests)).encode()).hexdigest()
    return Claim(hashlib.sha256(f"{identity}\n{key}".encode()).hexdigest(), fingerprint, uuid.uuid4().hex)


def _digest(file: IO[bytes]) -> str:
    """By parts: a copy of the whole upload would be for nothing."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


def once(answers: Answers, claimed: Claim, work: Callable[[], str]) -> tuple[str, bool]:
    """The kept answer, or that of the work; and whether it was kept.

    Raises:
        GatewayError: of `Answers`, and whatever the work raises.
    """
    kept = answers.begin(claimed)
    if kept is not None:
        return kept, True
    try:
        answer = work()
    except BaseException:
        with contextlib.suppress(IdempotencyUnavailable):
            answers.release(claimed)
        raise
    answers.keep(claimed, answer)
    return answer, False
