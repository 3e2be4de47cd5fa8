"""The command line, spelt as tensorflow_model_server spells it. Only --host is ours."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Flags:
    """Every flag that our stack sets; see tensorflow_model_server --help."""

    host: str
    port: int
    rest_api_port: int
    model_name: str
    model_base_path: str
    model_config_file: Path | None
    enable_batching: bool
    batching_parameters_file: Path | None
    monitoring_config_file: Path | None
    ssl_config_file: Path | None
    grpc_max_threads: int
    grpc_channel_arguments: tuple[tuple[str, int | str], ...]
    file_system_poll_wait_seconds: float
    max_num_load_retries: int
    load_retry_interval_micros: int
    enable_model_warmup: bool
    allow_version_labels_for_unavailable_models: bool


class StartupError(Exception):
    """The server cannot start; the text is the real server's."""


def parse_flags(argv: Sequence[str]) -> Flags:
    """Read the command line.

    Raises:
        StartupError: flags that contradict each other.
    """
    parser = argparse.ArgumentParser(prog="python -m serving.embedded", description="Stand-in for tensorflow_model_server.")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; the real server binds all")
    parser.add_argument("--port", type=int, default=8500, help="gRPC port")
    parser.add_argument("--rest_api_port", type=int, default=0, help="0 is off")
    parser.add_argument("--model_name", default="default")
    parser.add_argument("--model_base_path", default="")
    parser.add_argument("--model_config_file", type=Path)
    _add_switch(parser, "--enable_batching", default=False)
    parser.add_argument("--batching_parameters_file", type=Path)
    parser.add_argument("--monitoring_config_file", type=Path)
    parser.add_argument("--ssl_config_file", type=Path, help="keys and certificates of the gRPC port; without it, plain text")
    parser.add_argument("--grpc_max_threads", type=int, default=4 * (os.cpu_count() or 1), help="calls at a time")
    parser.add_argument("--grpc_channel_arguments", type=_channel_arguments, default=(), help="key=value,key=value")
    parser.add_argument("--file_system_poll_wait_seconds", type=float, default=1.0)
    parser.add_argument("--max_num_load_retries", type=int, default=5)
    parser.add_argument("--load_retry_interval_micros", type=int, default=60_000_000)
    _add_switch(parser, "--enable_model_warmup", default=True)
    _add_switch(parser, "--allow_version_labels_for_unavailable_models", default=False)
    flags = Flags(**vars(parser.parse_args(argv)))
    if not flags.model_base_path and flags.model_config_file is None:
        raise StartupError("Both server_options.model_base_path and server_options.model_config_file are empty!")
    if flags.batching_parameters_file and not flags.enable_batching:
        raise StartupError(
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
        )
    return flags


def _add_switch(parser: argparse.ArgumentParser, name: str, *, default: bool) -> None:
    """`--name` alone is `--name=true`."""
    parser.add_argument(name, type=_boolean, nargs="?", const=True, default=default)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {text}")
    return text == "true"


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    """Numbers as numbers, for gRPC ignores what has the wrong type."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(key and equals for key, equals, _ in pairs):
        raise argparse.ArgumentTypeError(f"expected key=value,key=value, got {text}")
    return tuple((key, int(value) if value.lstrip("-").isdecimal() else value) for key, _, value in pairs)
