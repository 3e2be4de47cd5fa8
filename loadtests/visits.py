"""What each kind of visitor does: the portal's, API clients with one picture or several, a slow one, and a hostile one."""

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from loadtests.corpus import Corpus, Entry
from loadtests.exchange import Answer, Connection, form
from loadtests.judge import Judge, Verdict, judge_page, worst
from loadtests.recipe import OK
from loadtests.tally import Tally

MIX: Final[dict[str, int]] = {"portal": 30, "api": 50, "batch": 5, "slow": 5, "hostile": 10}
"""Visits of a hundred."""

SINGLE: Final = ("api", "portal result")
"""Steps whose answer is that to a single picture, on a good line."""

MAX_BATCH: Final = 16
MAX_BATCH_BYTES: Final = 18_000_000
"""All files of a request share the gateway's limit of 20 MB."""

THINK_S: Final = 1.0
"""Of the portal's visitor, on average, until the picture is chosen; and of a closed loop's user between two visits."""

SLOW_PIECES, SLOW_UPLOAD_S = 20, 4.0
"""A picture on a bad line, and how long its upload takes."""

BROKEN_SHARE: Final = 0.2
"""Of the batches: one file of them is hostile."""

_API: Final = "/api/v1/classifications"
_ASSET: Final = re.compile(rb'(?:href|src)="(/static/[^"]+\.(?:css|js))"')

Chance = random.Random


def _nothing(_step: str, _took_s: float, _size: int, _verdict: Verdict) -> None:
    pass


@dataclass
class Site:
    """The gateway that is visited, and what is known of it.

    Attributes:
        address, key: of the gateway.
        corpus: what is sent.
        judge, tally: of what comes back.
        observe: is told of each request: step, seconds since it was due, bytes, verdict.
    """

    address: str
    key: str
    corpus: Corpus
    judge: Judge
    tally: Tally
    observe: Callable[[str, float, int, Verdict], None] = _nothing
    wall_s: float = field(default_factory=lambda: time.time() - time.perf_counter())

    def drop(self) -> None:
        """A visit is due and there is no room for it. The tally may be another one each time: workers hand theirs over."""
        self.tally.drop()

    def visit(self, flow: str, due_s: float, chance: Chance) -> None:
        """Make one visit, on a connection of its own.

        Args:
            flow: a key of `MIX`.
            due_s: when it should begin, of the monotonic clock.
            chance: chooses its pictures.
        """
        self.tally.begin_visit(time.perf_counter() - due_s)
        connection = Connection(self.address, self.key)
        try:
            _FLOWS[flow](self, connection, due_s, chance)
        except Exception as error:
            # The edge of a greenlet: a fault of ours must not pass for a run without complaints.
            self.tally.crash(flow, type(error).__name__)
            raise
        finally:
            connection.close()
            self.tally.end_visit()

    def ask(
        self,
        step: str,
        due_s: float,
        send: Callable[[], Answer],
        judge: Callable[[Answer], Sequence[Verdict]],
        is_timed_from_last_byte: bool = False,
    ) -> Answer:
        """Send one request and count what comes of it."""
        second = int(self.wall_s + due_s)
        self.tally.offer(second)
        answer = send()
        verdicts = judge(answer)
        took_s = answer.ended_s - (answer.sent_s if is_timed_from_last_byte and answer.sent_s else due_s)
        self.tally.end(step, second, took_s, verdicts, is_timed=step in SINGLE)
        self.observe(step, took_s, len(answer.body), worst(verdicts))
        return answer


def _upload(
    connection: Connection, path: str, entries: Sequence[Entry], fields: Mapping[str, str] | None = None
) -> Callable[[], Answer]:
    content_type, body = form((entry.data for entry in entries), fields)
    headers = {"Content-Type": content_type, "Origin": connection.origin, "Cookie": "language=en"}
    return lambda: connection.send("POST", path, headers, body)


def _portal(site: Site, connection: Connection, due_s: float, chance: Chance) -> None:
    """The page, what it asks for, some seconds to choose a picture, and the form as a browser without scripts sends it."""
    page = site.ask("portal page", due_s, lambda: connection.send("GET", "/check"), lambda answer: [judge_page(answer)])
    if page.status != OK:
        return
    for path in dict.fromkeys(_ASSET.findall(page.body)):
        get = _getter(connection, path.decode())
        site.ask("portal asset", time.perf_counter(), get, lambda answer: [judge_page(answer)])
    # While a person thinks, a server ends what is idle, and a browser opens another one, as http.client then does.
    connection.close()
    think_s = chance.uniform(0, 2 * THINK_S)
    due_s = time.perf_counter() + think_s
    time.sleep(think_s)
    entry = site.corpus.picture(chance)
    send = _upload(connection, "/check", [entry], {"consent": "yes"})
    site.ask("portal result", due_s, send, lambda answer: [site.judge.page(answer, entry)])


def _getter(connection: Connection, path: str) -> Callable[[], Answer]:
    return lambda: connection.send("GET", path)


def _api(site: Site, connection: Connection, due_s: float, chance: Chance) -> None:
    """One picture."""
    entry = site.corpus.picture(chance)
    site.ask("api", due_s, _upload(connection, _API, [entry]), lambda answer: [site.judge.classification(answer, entry)])


def _batch(site: Site, connection: Connection, due_s: float, chance: Chance) -> None:
    """Two to sixteen pictures, among them sometimes a file that is none."""
    entries = [site.corpus.picture(chance) for _ in range(chance.randint(2, MAX_BATCH))]
    if chance.random() < BROKEN_SHARE:
        entries[chance.randrange(len(entries))] = site.corpus.hostile(chance)
    while sum(entry.size for entry in entries) > MAX_BATCH_BYTES:
        # The largest one waits for a visit of its own.
        entries.remove(max(entries, key=lambda entry: entry.size))
    if entries:
        send = _upload(connection, f"{_API}:batch", entries)
        site.ask("batch", due_s, send, lambda answer: site.judge.batch(answer, entries))


def _slow(site: Site, connection: Connection, due_s: float, chance: Chance) -> None:
    """One picture on a bad line; the time of its answer counts from its last byte."""
    entry = site.corpus.picture(chance)
    content_type, body = form([entry.data])
    size = max(1, len(entry.data) // SLOW_PIECES)
    pieces = [piece[start : start + size] for piece in body for start in range(0, len(piece), size)]

    def send() -> Answer:
        return connection.send("POST", _API, {"Content-Type": content_type}, pieces, SLOW_UPLOAD_S / len(pieces))

    site.ask(
        "slow upload", due_s, send, lambda answer: [site.judge.classification(answer, entry)], is_timed_from_last_byte=True
    )


def _hostile(site: Site, connection: Connection, due_s: float, chance: Chance) -> None:
    """A file that must be refused, with the very problem that it has."""
    entry = site.corpus.hostile(chance)
    site.ask("hostile", due_s, _upload(connection, _API, [entry]), lambda answer: [site.judge.classification(answer, entry)])


_FLOWS: Final[dict[str, Callable[[Site, Connection, float, Chance], None]]] = {
    "portal": _portal,
    "api": _api,
    "batch": _batch,
    "slow": _slow,
    "hostile": _hostile,
}
