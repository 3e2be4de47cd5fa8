"""What a request counts under the limits of rates, where that is known only once its form is read."""

from collections.abc import Callable
from typing import Final

from flask import Flask, current_app

_EXTENSION: Final = "dermserve-charges"


def init_app(app: Flask, count: Callable[[int], None]) -> None:
    """Where classifications are limited: `count` raises when there are more pictures than the limit has left."""
    app.extensions[_EXTENSION] = count


def charge(pictures: int) -> None:
    """Count the pictures of the current request beyond its first one, which was counted before the form was read.

    Raises:
        werkzeug.exceptions.TooManyRequests: the limit has not so much left. None of them is counted then.
    """
    count: Callable[[int], None] | None = current_app.extensions.get(_EXTENSION)
    if count and pictures:
        count(pictures)
