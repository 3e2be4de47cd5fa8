"""Composition root: environment -> settings -> model server -> application. Imported by each worker, after the fork."""

import atexit
import os
from pathlib import Path

from gateway import logs, metrics
from gateway.api_keys import ApiKeys
from gateway.app import Doors, create_app
from gateway.audit.trail import NO_AUDIT, Audit, FileAudit
from gateway.canary import CanaryPredictor
from gateway.cases.record import CaseStore
from gateway.golden import GoldenCheck
from gateway.idempotency import Answers
from gateway.open_inference import OpenInferencePredictor
from gateway.predictor import Predictor
from gateway.settings import IS_STOPPING, KEYS, OIDC, OPEN_INFERENCE, Settings
from gateway.tfserving import TFServingPredictor
from gateway.tracing import TracedApplication
from serving import tracing
from serving.channel import read_credentials
from serving.contract import CANARY_LABEL

logs.configure(metrics.LOG_LINES_LOST.inc)
settings = Settings.from_env(os.environ)
credentials = read_credentials(settings.model_server_ca, settings.model_server_certificate, settings.model_server_key)
timeout_s = settings.predict_timeout_s
predictor: Predictor
answering: list[Predictor]
if settings.model_server_protocol == OPEN_INFERENCE:
    predictor = OpenInferencePredictor(settings.model_server, timeout_s, credentials)
    answering = [predictor]
else:
    stable = TFServingPredictor(settings.model_server, settings.model_label, timeout_s, credentials)
    # Half the time: what a canary takes and fails is taken from the picture's own answer.
    canary = TFServingPredictor(settings.model_server, CANARY_LABEL, timeout_s / 2, credentials)
    predictor = CanaryPredictor(stable, canary, settings.canary_share, settings.shadow_share)
    answering = [stable, canary] if settings.canary_share else [stable]
# What is off is not loaded: Authlib takes 11 MB of each worker, SQLAlchemy 23, the client of Redis 30, OpenTelemetry 4.
provider = None
if OIDC in settings.identities:
    from gateway.oidc import Provider

    provider = Provider(settings)
store = None
answers: Answers | None = None
if settings.redis_url:
    from gateway.redis_answers import RedisAnswers
    from gateway.redis_store import connect

    store = connect(settings)
    answers = RedisAnswers(store, settings.worker_timeout_s)
limit_rates = None
if settings.asks_who or settings.rate_limit:
    from gateway.rate_limits import RateLimits

    limit_rates = RateLimits(settings, store).init_app
keys = ApiKeys(Path(settings.api_keys_file)) if KEYS in settings.identities else None
audit: Audit = FileAudit(Path(settings.audit_file)) if settings.audit_file else NO_AUDIT
case_store: CaseStore | None = None
if settings.cases_database:
    from gateway.cases import database
    from gateway.cases.store import DatabaseStore

    case_store = DatabaseStore(database.connect(settings))
app = create_app(settings, predictor, Doors(keys, provider, limit_rates), answers, audit, case_store)
if settings.proxies:
    from werkzeug.middleware.proxy_fix import ProxyFix

    # The address only: scheme and host come from GATEWAY_PUBLIC_URL.
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.proxies, x_proto=0, x_host=0)  # type: ignore[method-assign]
if settings.traces_endpoint:
    from serving.spans import OtlpTracer

    tracer = OtlpTracer(
        "dermserve-gateway",
        settings.traces_endpoint,
        settings.traces_share,
        lambda result, spans: metrics.SPANS.labels(result).inc(spans),
    )
    tracing.install(tracer)
    atexit.register(tracer.close)
    app.wsgi_app = TracedApplication(app.wsgi_app)  # type: ignore[method-assign]
if settings.golden_period_s:
    processes = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    golden = GoldenCheck(
        app.extensions["classifier"], answering, settings.golden_period_s, processes, lambda: bool(app.config.get(IS_STOPPING))
    )
    golden.start()
