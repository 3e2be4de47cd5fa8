"""The Redis that processes share."""

from pathlib import Path
from typing import Final

import redis

from gateway.settings import Settings

TIMEOUT_S: Final = 1.0
"""Of a connection and of each answer: what is kept there makes answers better, and must not make them late."""


def connect(settings: Settings) -> redis.Redis:
    """A client of the Redis of the settings; it connects when it is first used."""
    password = Path(settings.redis_password_file).read_text().strip() if settings.redis_password_file else None
    return redis.Redis.from_url(
        settings.redis_url, password=password, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
    )
