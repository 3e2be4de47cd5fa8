"""The tracer over OpenTelemetry's SDK: spans go to a collector in OTLP over HTTP. Only imported where traces are on.

Make it after the fork: a thread sends what has ended, in batches and from a bounded queue. A collector that is away costs spans
and nothing else.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import requests
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.tracing import TRACEPARENT, Attribute

PATH: Final = "/v1/traces"
"""Of every receiver of OTLP over HTTP."""

MAX_QUEUED: Final = 2048
"""Spans of one process that wait to be sent, a few MB; older ones make way."""

_BATCH: Final = 512

_SEND_TIMEOUT_S: Final = 2.0
_CLOSE_S: Final = 2.0
"""For what has not been sent when the process ends: nobody shall wait for a collector that is away."""

_PROPAGATOR: Final = TraceContextTextMapPropagator()


class OtlpTracer:
    """See `serving.tracing.Tracer`."""

    def __init__(self, service: str, endpoint: str, share: float, count: Callable[[str, int], None] = lambda *_: None) -> None:
        """Start the thread that sends.

        Args:
            service: name of this program.
            endpoint: of the collector, http://host:4318.
            share: of the requests that come without a trace; one with a trace is part of it if its sender is.
            count: told of `sent` and `lost` spans.
        """
        # A library's lines would stand between ours, two for each batch while a collector is away; they are counted instead.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        session = requests.Session()
        # Never through a proxy that the environment names.
        session.trust_env = False
        sender = OTLPSpanExporter(endpoint.rstrip("/") + PATH, timeout=_SEND_TIMEOUT_S, session=session)
        self._exporter = _Exporter(sender, count)
        # How often it sends is left to the SDK: every five seconds, or OTEL_BSP_SCHEDULE_DELAY.
        processor = BatchSpanProcessor(self._exporter, max_queue_size=MAX_QUEUED, max_export_batch_size=_BATCH)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource.create({SERVICE_NAME: service}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("dermserve")

    def close(self) -> None:
        """Send what has ended, within seconds, and end the thread."""
        self._exporter.close_within(_CLOSE_S)
        self._provider.shutdown()

    @contextmanager
    def serve(self, name: str, traceparent: str | None) -> Iterator[None]:
        """See `serving.tracing.Tracer`."""
        with self._current(name, _context(traceparent), SpanKind.SERVER):
            yield

    @contextmanager
    def span(self, name: str, *, is_call: bool = False) -> Iterator[None]:
        """See `serving.tracing.Tracer`."""
        if not trace.get_current_span().get_span_context().is_valid:
            yield
            return
        with self._current(name, None, SpanKind.CLIENT if is_call else SpanKind.INTERNAL):
            yield

    @contextmanager
    def _current(self, name: str, context: Context | None, kind: SpanKind) -> Iterator[None]:
        # Without the exception's text, which was not written for whoever reads traces.
        with self._tracer.start_as_current_span(
            name, context, kind, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException:
                span.set_status(StatusCode.ERROR)
                raise

    def describe(self, name: str | None, attributes: Mapping[str, Attribute], *, is_error: bool = False) -> None:
        """See `serving.tracing.Tracer`."""
        span = trace.get_current_span()
        if name is not None:
            span.update_name(name)
        span.set_attributes(attributes)
        if is_error:
            span.set_status(StatusCode.ERROR)

    def traceparent(self) -> str | None:
        """See `serving.tracing.Tracer`."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get(TRACEPARENT)

    def trace_id(self) -> str | None:
        """See `serving.tracing.Tracer`."""
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else None

    def record(
        self, traceparent: str | None, name: str, start_s: float, end_s: float, attributes: Mapping[str, Attribute]
    ) -> None:
        """See `serving.tracing.Tracer`."""
        wall_s = time.time() - time.monotonic()
        span = self._tracer.start_span(
            name, _context(traceparent), attributes=attributes, start_time=int((start_s + wall_s) * 1e9)
        )
        span.end(end_time=int((end_s + wall_s) * 1e9))


class _Exporter(SpanExporter):
    """Counts what it hands on, and gives up when the time is over."""

    def __init__(self, sender: SpanExporter, count: Callable[[str, int], None]) -> None:
        self._sender = sender
        self._count = count
        self._end_s = float("inf")

    def close_within(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        is_late = time.monotonic() > self._end_s
        result = SpanExportResult.FAILURE if is_late else self._sender.export(spans)
        self._count("sent" if result is SpanExportResult.SUCCESS else "lost", len(spans))
        return result

    def shutdown(self) -> None:
        self._sender.shutdown()


def _context(traceparent: str | None) -> Context:
    """Of another program's span; of none without a header that can be read."""
    return _PROPAGATOR.extract({TRACEPARENT: traceparent} if traceparent else {}, Context())
