"""The stack as a queueing system: a discrete-event simulation of gateways, batching model servers and the cores they share.

Structure is the code's own: places and turns as in gateway/admission.py, two pictures decoded at a time in a process
(gateway/classify.py), batches as in serving/embedded/batching.py. Times come from outside, as `Costs`. Knows no sockets.
"""

import itertools
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from scripts.capacity.cores import MOMENT_S, Cores

ANSWERED, REFUSED, LATE = "answered", "refused", "late"
Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Batch:
    """What the model needs for so many pictures at once, alone on the machine.

    Attributes:
        pictures: how many.
        wall_s: by the clock.
        cpu_s: of all cores together.
    """

    pictures: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Costs:
    """What one picture costs; processor seconds unless said otherwise.

    Attributes:
        caller_s: of whoever sends it, on the same machine; 0 when that is another one.
        http_s: of the gateway for request and answer, half before its turn and half after it.
        work_s: of the gateway in its turn: decoding, resizing, asking, deciding.
        rpc_s: of the model server, for the call without the network.
        idle_s: by the clock, with no processor busy: waking up, loopback.
        refusal_s: of the gateway, for a picture that it refuses.
        batches: of the network, by size; what lies between is interpolated.
        scatter: factors that the batches' times vary by, one of which is drawn for each batch.
        company: times what the same takes when nothing else is busy; the above have it in them.
    """

    caller_s: float
    http_s: float
    work_s: float
    rpc_s: float
    idle_s: float
    refusal_s: float
    batches: tuple[Batch, ...]
    scatter: tuple[float, ...] = (1.0,)
    company: float = 1.0

    def batch(self, pictures: int) -> Batch:
        """Of any size between the smallest and the largest."""
        sizes = [batch.pictures for batch in self.batches]
        wall_s = float(np.interp(pictures, sizes, [batch.wall_s for batch in self.batches]))
        return Batch(pictures, wall_s, float(np.interp(pictures, sizes, [batch.cpu_s for batch in self.batches])))


@dataclass(frozen=True)
class Deployment:
    """What runs where; the fields after the hosts are settings of the gateway and of the model server, with their names.

    Attributes:
        gateways, servers: hosts of each kind.
        gateway_cores: of a gateway's host.
        server_cores: of a model server's host; None when everything, callers included, shares the gateway's.
    """

    gateways: int = 1
    servers: int = 1
    gateway_cores: float = 2.0
    server_cores: float | None = None
    workers: int = 2
    threads: int = 8
    max_waiting: int = 8
    max_wait_s: float = 1.0
    max_decoding: int = 2
    predict_timeout_s: float = 6.0
    max_batch_size: int = 32
    batch_timeout_s: float = 0.002
    num_batch_threads: int = 2
    max_enqueued_batches: int = 4


@dataclass(frozen=True)
class Outcomes:
    """Of every picture, in the order of their arrival.

    Attributes:
        due_s: when it came.
        seconds: until its answer, whichever.
        status: answered, refused (503 with Retry-After) or late (its deadline passed).
    """

    due_s: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    status: npt.NDArray[np.str_]


@dataclass
class _Open:
    """A batch that is being filled."""

    opened_s: float
    deadlines: list[float] = field(default_factory=list)
    answers: list[simpy.Event] = field(default_factory=list)


class _ModelServer:
    """See serving/embedded/batching.py; all pictures are of one queue."""

    def __init__(self, stack: "_Stack", cores: Cores) -> None:
        self.cores = cores
        self._stack = stack
        self._env = stack.env
        self._queue: deque[_Open] = deque()
        self._changed = self._env.event()
        for _ in range(stack.deployment.num_batch_threads):
            self._env.process(self._work())

    def submit(self) -> simpy.Event | None:
        """An event that comes with the answer; None when the queue is full."""
        of = self._stack.deployment
        if not self._queue or len(self._queue[-1].answers) >= of.max_batch_size:
            if len(self._queue) >= of.max_enqueued_batches:
                return None
            self._queue.append(_Open(self._env.now))
        answer = self._env.event()
        self._queue[-1].answers.append(answer)
        self._queue[-1].deadlines.append(self._env.now + of.predict_timeout_s)
        changed, self._changed = self._changed, self._env.event()
        changed.succeed()
        return answer

    def _work(self) -> Process:
        of, costs = self._stack.deployment, self._stack.costs
        while True:
            if not self._queue:
                yield self._changed
                continue
            head = self._queue[0]
            wait_s = head.opened_s + of.batch_timeout_s - self._env.now
            if len(head.answers) < of.max_batch_size and wait_s > MOMENT_S:
                yield self._changed | self._env.timeout(wait_s)
                continue
            self._queue.popleft()
            if max(head.deadlines) > self._env.now:
                batch = costs.batch(len(head.answers))
                factor = costs.scatter[self._stack.rng.integers(len(costs.scatter))]
                yield self.cores.run(batch.cpu_s * factor, batch.cpu_s / batch.wall_s)
            for answer in head.answers:
                answer.succeed()


class _Worker:
    """One process of a gateway."""

    def __init__(self, stack: "_Stack", cores: Cores) -> None:
        of = stack.deployment
        self.cores = cores
        self.room = of.threads + of.max_waiting
        self.busy = 0
        self.turns = simpy.Resource(stack.env, of.threads)
        self.decoding = simpy.Resource(stack.env, of.max_decoding)
        # gRPC's round_robin, not in step with the other processes.
        first = int(stack.rng.integers(of.servers))
        self.servers = itertools.cycle([*stack.servers[first:], *stack.servers[:first]])


class _Stack:
    def __init__(self, costs: Costs, deployment: Deployment, rng: np.random.Generator) -> None:
        self.env = simpy.Environment()
        self.costs, self.deployment, self.rng = costs, deployment, rng
        hosts = [Cores(self.env, deployment.gateway_cores) for _ in range(deployment.gateways)]
        self.caller_cores = hosts[0]
        cores = deployment.server_cores
        self.server_hosts = hosts[:1] if cores is None else [Cores(self.env, cores) for _ in range(deployment.servers)]
        self.servers = [_ModelServer(self, self.server_hosts[n % len(self.server_hosts)]) for n in range(deployment.servers)]
        self.workers = [[_Worker(self, host) for _ in range(deployment.workers)] for host in hosts]
        self.seconds: list[float] = []
        self.status: list[str] = []

    def arrive(self, due_s: Sequence[float]) -> Process:
        self.seconds, self.status = [0.0] * len(due_s), [""] * len(due_s)
        for number, due in enumerate(due_s):
            if due > self.env.now:
                yield self.env.timeout(due - self.env.now)
            self.env.process(self._picture(number, due))

    def call_on(self, until_s: float) -> Process:
        """One caller of a closed loop."""
        while self.env.now < until_s:
            self.seconds.append(0.0)
            self.status.append("")
            yield self.env.process(self._picture(len(self.status) - 1, self.env.now))

    def _picture(self, number: int, due: float) -> Process:
        yield self.caller_cores.run(self.costs.caller_s / 2)
        host = self.workers[self.rng.integers(len(self.workers))]
        # Whoever is less busy is the first to accept a connection from the queue that a host's processes share.
        worker = min(host, key=lambda worker: (worker.busy, self.rng.random()))
        worker.busy += 1
        status = yield from self._through(worker)
        worker.busy -= 1
        yield self.caller_cores.run(self.costs.caller_s / 2)
        self.seconds[number], self.status[number] = self.env.now - due, status

    def _through(self, worker: _Worker) -> Generator[simpy.Event, Any, str]:
        if worker.room == 0:
            yield worker.cores.run(self.costs.refusal_s)
            return REFUSED
        worker.room -= 1
        yield worker.cores.run(self.costs.http_s / 2)
        turn = worker.turns.request()
        if not turn.triggered:
            yield turn | self.env.timeout(self.deployment.max_wait_s)
        if turn.triggered:
            status = yield from self._turn(worker)
            worker.turns.release(turn)
        else:
            turn.cancel()
            status = REFUSED
        yield worker.cores.run(self.costs.http_s / 2)
        worker.room += 1
        return status

    def _turn(self, worker: _Worker) -> Generator[simpy.Event, Any, str]:
        with worker.decoding.request() as decoding:
            yield decoding
            yield worker.cores.run(self.costs.work_s)
        server = next(worker.servers)
        yield server.cores.run(self.costs.rpc_s)
        answer = server.submit()
        if answer is None:
            return REFUSED
        yield answer | self.env.timeout(self.deployment.predict_timeout_s)
        if self.costs.idle_s:
            yield self.env.timeout(self.costs.idle_s)
        return ANSWERED if answer.processed else LATE


def simulate(costs: Costs, deployment: Deployment, due_s: Sequence[float], seed: int = 1) -> Outcomes:
    """What becomes of pictures that arrive when they are due, whether or not the ones before are answered."""
    stack = _Stack(costs, deployment, np.random.default_rng(seed))
    arriving = stack.env.process(stack.arrive(due_s))
    stack.env.run(arriving)
    # The model servers' threads wait for ever; everything else has ended when every picture has.
    while "" in stack.status:
        stack.env.step()
    return Outcomes(np.array(due_s, float), np.array(stack.seconds), np.array(stack.status))


def closed_rate(costs: Costs, deployment: Deployment, callers: int, seconds: float, seed: int = 1) -> float:
    """Pictures a second of so many callers, each of whom sends the next one when the last is answered."""
    stack = _Stack(costs, deployment, np.random.default_rng(seed))
    loops = [stack.env.process(stack.call_on(seconds)) for _ in range(callers)]
    stack.env.run(stack.env.all_of(loops))
    return len(stack.status) / stack.env.now


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments at which pictures come, independent of each other."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1.0 / rate, int(rate * seconds + 10 * (rate * seconds) ** 0.5) + 20)
    moments = np.cumsum(gaps)
    return [float(moment) for moment in moments[moments < seconds]]
