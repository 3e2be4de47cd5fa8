"""Answers of an Idempotency-Key in Redis: claimed by one request, kept for a day."""

from typing import Final, cast

import redis

from gateway.errors import IdempotencyInProgress, IdempotencyKeyReused, IdempotencyUnavailable
from gateway.idempotency import Claim

KEPT_S: Final = 24 * 3600
"""From when the answer was made."""

PREFIX: Final = "dermserve:idempotency:"

_AT_WORK: Final = b"at work"
_DONE: Final = b"done"

# Only who holds the claim may end it: after a claim has run out another request may hold the next one.
_KEEP: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end"
_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"


class RedisAnswers:
    """See `gateway.idempotency.Answers`. A value is three lines: state, fingerprint, and token or answer."""

    def __init__(self, client: redis.Redis, claim_s: float) -> None:
        """One for each process.

        Args:
            client: its connections.
            claim_s: after which a claim whose process died is free again; longer than a request can take.
        """
        self._client = client
        self._claim_ms = round(claim_s * 1000)

    def begin(self, claim: Claim) -> str | None:
        """See `gateway.idempotency.Answers`."""
        try:
            is_ours = self._client.set(PREFIX + claim.name, _held(claim), nx=True, px=self._claim_ms)
            value = b"" if is_ours else cast("bytes | None", self._client.get(PREFIX + claim.name))
        except redis.RedisError as error:
            raise IdempotencyUnavailable(str(error)) from error
        if is_ours:
            return None
        # In between the first request may have failed, or its claim have run out; whoever tries again finds the key free.
        state, fingerprint, rest = value.split(b"\n", 2) if value else (_AT_WORK, claim.fingerprint.encode(), b"")
        if fingerprint.decode() != claim.fingerprint:
            raise IdempotencyKeyReused("the Idempotency-Key came before with another picture, address or form of the answer")
        if state == _AT_WORK:
            raise IdempotencyInProgress("the first request with this Idempotency-Key is still at work")
        return rest.decode()

    def keep(self, claim: Claim, answer: str) -> None:
        """See `gateway.idempotency.Answers`."""
        value = b"\n".join((_DONE, claim.fingerprint.encode(), answer.encode()))
        if not self._end(_KEEP, claim, value, str(KEPT_S)):
            raise IdempotencyUnavailable("the claim was lost before the answer was there")

    def release(self, claim: Claim) -> None:
        """See `gateway.idempotency.Answers`."""
        self._end(_RELEASE, claim)

    def _end(self, script: str, claim: Claim, *arguments: bytes | str) -> object:
        try:
            return self._client.eval(script, 1, PREFIX + claim.name, _held(claim), *arguments)
        except redis.RedisError as error:
            raise IdempotencyUnavailable(str(error)) from error


def _held(claim: Claim) -> bytes:
    return b"\n".join((_AT_WORK, claim.fingerprint.encode(), claim.token.encode()))
