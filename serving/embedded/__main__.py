"""`python -m serving.embedded --port=8500 ...`: composition root of the embedded model server."""

import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving import tracing
from serving.allocator import use_one_heap
from serving.embedded.batching import BatchScheduler
from serving.embedded.catalogue import Catalogue
from serving.embedded.config import read_batching, read_credentials, read_metrics_path, read_model_configs
from serving.embedded.flags import Flags, StartupError, parse_flags
from serving.embedded.management import ModelService
from serving.embedded.monitoring import Monitoring
from serving.embedded.prediction import PredictionService
from serving.embedded.rest import make_rest_server
from serving.embedded.status import ServingError

TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""OpenTelemetry's own variable, for the real server has no flag for it: a collector, http://host:4318. Unset: no traces."""

if os.environ.get(TRACES_ENDPOINT):
    # Here and not above: the SDK is not loaded, and need not be installed, where nothing is traced.
    from serving.spans import OtlpTracer

GRACE_S = 10.0
"""How long calls in flight may take after SIGTERM."""

_LOOK_UP_S = 0.2
"""How often the main thread looks whether a signal has come."""


def main() -> int:
    """Serve until SIGTERM or SIGINT; 255 when the server cannot start, as the real one."""
    # Else the buffers of large batches stay in the heap of each thread that ran one: 80 MB in a soak of 25 minutes.
    # The largest threshold there is: to map and unmap each tensor would cost time.
    use_one_heap(mmap_threshold=32 << 20, trim_threshold=64 << 20)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        serve(parse_flags(sys.argv[1:]), stopped)
    except (StartupError, ServingError, OSError, RuntimeError) as error:
        # The real server prints a status, which begins with its code; mistakes in flags and files have this one.
        code = "INVALID_ARGUMENT: " if isinstance(error, StartupError) else ""
        print(f"Failed to start server. Error: {code}{error}", flush=True)
        return 255
    return 0


def serve(flags: Flags, stopped: threading.Event) -> None:
    """Load the models, open the ports, wait, drain.

    Raises:
        StartupError: a configuration file has a mistake.
        ServingError: a model does not load.
        OSError, RuntimeError: a port cannot be bound.
    """
    # All before anything is started, so that a mistake in one ends the program with its text.
    configs = read_model_configs(flags)
    batching = read_batching(flags, os.cpu_count() or 1)
    metrics_path = read_metrics_path(flags)
    credentials = read_credentials(flags)
    metrics = Monitoring()
    catalogue = Catalogue(flags, metrics)
    with ExitStack() as cleanup:
        if os.environ.get(TRACES_ENDPOINT):
            # Calls that come without a trace begin none, whatever the share.
            tracer = OtlpTracer("dermserve-model-server", os.environ[TRACES_ENDPOINT], share=0.0)
            tracing.install(tracer)
            cleanup.callback(tracer.close)
        scheduler = BatchScheduler(batching, metrics) if batching else None
        if scheduler:
            cleanup.callback(scheduler.stop)
        cleanup.callback(catalogue.stop)
        names = catalogue.configure(configs)
        catalogue.start()
        while not catalogue.wait_for(names, _LOOK_UP_S, "servable(s)"):
            if stopped.is_set():
                return
        # No message limit, as the real server: a batch of 32 pictures has 4.8 MB.
        options: list[tuple[str, int | str]]
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
        options += flags.grpc_channel_arguments
        # Without the second limit, calls beyond the threads would queue unseen and without end.
        threads = flags.grpc_max_threads
        server = grpc.server(ThreadPoolExecutor(threads), options=options, maximum_concurrent_rpcs=threads)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(catalogue, scheduler, metrics), server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(catalogue), server)
        address = f"{flags.host}:{flags.port}"
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        server.start()
        cleanup.callback(lambda: server.stop(GRACE_S).wait())
        print(f"Running gRPC ModelServer at {flags.host}:{port} ...", flush=True)
        if flags.rest_api_port:
            rest = make_rest_server(flags.host, flags.rest_api_port, catalogue, metrics, metrics_path)
            threading.Thread(target=rest.serve_forever, name="rest", daemon=True).start()
            # In reverse: no more answers, then no more connections, while calls in flight finish.
            cleanup.callback(rest.server_close)
            cleanup.callback(rest.shutdown)
            print(f"Exporting HTTP/REST API at:{flags.host}:{rest.server_port} ...", flush=True)
        # Not one long wait: a signal that the kernel gives to a thread of TensorFlow or gRPC does not wake this one (observed).
        while not stopped.wait(_LOOK_UP_S):
            pass


if __name__ == "__main__":
    sys.exit(main())
