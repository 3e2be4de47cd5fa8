"""The connection to Redis, in which processes keep what they share.

Imported only where GATEWAY_REDIS_URL is set: the library takes 30 MB of each process.
"""

from pathlib import Path
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.settings import Settings

_TIMEOUT_S: Final = 1.0
"""For an answer. A person waits for what is asked here, and Redis takes a millisecond."""

_CONNECT_TIMEOUT_S: Final = 0.5


def connect(settings: Settings) -> redis.Redis:
    """A client with connections of its own; make it in each process, after it was forked. Nothing is sent yet.

    Raises:
        OSError: the file of the password cannot be read.
    """
    password = Path(settings.redis_password_file).read_text().strip() if settings.redis_password_file else None
    return redis.Redis.from_url(
        settings.redis_url,
        password=password,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        # Once, at once: a connection that was idle while Redis restarted is found to be dead only when it is used.
        retry=Retry(NoBackoff(), 1),
    )
