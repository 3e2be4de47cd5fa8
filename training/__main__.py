"""`python -m training fetch|quality|train|calibrate|export|evaluate|unseen|robustness|parity|report`."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from training.calibrate import calibrate
from training.config import PRESETS
from training.data import load_examples
from training.distribution import Strategy
from training.evaluate import evaluate, format_scores, load_metadata, load_predict_fn
from training.export import export
from training.fetch import FetchError, fetch
from training.parity import format_parity, parity
from training.quality import format_quality
from training.report import report
from training.robustness import robustness
from training.train import train
from training.unseen import unseen

OF_A_VERSION = {
    "evaluate": "score a published version",
    "robustness": "score it on the same lesions, changed",
    "parity": "compare it with its float32 network",
    "report": "render its model card and figures",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command and run it."""
    arguments = _parser().parse_args(argv)
    COMMANDS[arguments.command](arguments)


def _fetch(arguments: argparse.Namespace) -> None:
    try:
        print(f"listed: {fetch(arguments.out, arguments.limit)}")
    except FetchError as error:
        raise SystemExit(f"error: {error}") from error


def _train(arguments: argparse.Namespace) -> None:
    config = dataclasses.replace(PRESETS[arguments.preset](arguments.data), weights=arguments.weights)
    if arguments.epochs is not None:
        config = config.shortened(arguments.epochs)
    print(f"weights: {train(config, arguments.out, arguments.strategy)}")


def _export(arguments: argparse.Namespace) -> None:
    print(f"published: {export(arguments.run, arguments.base, arguments.version)}")


def _evaluate(arguments: argparse.Namespace) -> None:
    version, split = arguments.model, arguments.split
    print(format_scores(evaluate(load_predict_fn(version), load_metadata(version), arguments.data, arguments.cache, split)))


def _robustness(arguments: argparse.Namespace) -> None:
    version = arguments.model
    print(format_scores(robustness(load_predict_fn(version), load_metadata(version), arguments.data, arguments.cache)))


def _parity(arguments: argparse.Namespace) -> None:
    print(format_parity(parity(arguments.run, arguments.model, arguments.data, arguments.cache)))


def _report(arguments: argparse.Namespace) -> None:
    predict = load_predict_fn(arguments.model)
    report(arguments.model, predict, arguments.data, arguments.cache, arguments.docs, arguments.run)


COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "fetch": _fetch,
    "quality": lambda arguments: print(format_quality(load_examples(arguments.data))),
    "train": _train,
    "calibrate": lambda arguments: calibrate(arguments.run),
    "export": _export,
    "evaluate": _evaluate,
    "unseen": lambda arguments: print(format_scores(unseen(arguments.run))),
    "robustness": _robustness,
    "parity": _parity,
    "report": _report,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("fetch", help="download pictures of the ISIC archive (needs isic-cli)")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--limit", type=int, default=6000, help="pictures a class")

    command = commands.add_parser("quality", help="print what the thresholds of the quality warnings are chosen by")
    command.add_argument("--data", type=Path, required=True)

    command = commands.add_parser("train", help="train a preset; run again to resume")
    command.add_argument("--preset", choices=PRESETS, required=True)
    command.add_argument("--data", required=True, help="a CSV, or a folder with train/<class>/ and test/<class>/")
    command.add_argument(
        "--weights", default="imagenet", help="imagenet (default), none, an .npz file, or a run's model.weights.h5"
    )
    command.add_argument("--out", type=Path, required=True, help="folder of the run")
    command.add_argument("--epochs", type=int, help="end after so many, for a machine that cannot wait for all of the preset's")
    command.add_argument(
        "--strategy", choices=get_args(Strategy), default="single", help="devices: docs/distributed-training.md"
    )

    command = commands.add_parser("calibrate", help="fit Platt's map, thresholds and the none score on training and validation")
    command.add_argument("--run", type=Path, required=True)

    command = commands.add_parser("export", help="write, check and publish a version")
    command.add_argument("--run", type=Path, required=True)
    command.add_argument("--base", type=Path, default=Path("serving/models/lesion"))
    command.add_argument("--version", type=int, required=True)

    command = commands.add_parser("unseen", help="score the none score on kinds of picture left out of its fit")
    command.add_argument("--run", type=Path, required=True)

    for name, text in OF_A_VERSION.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--model", type=Path, required=True, help="folder of the version")
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--cache", type=Path, default=Path("runs/cache"))
        if name == "evaluate":
            command.add_argument("--split", default="test")
        if name in ("parity", "report"):
            command.add_argument("--run", type=Path, required=name == "parity", help="the training run it was exported from")
        if name == "report":
            command.add_argument("--docs", type=Path, default=Path("docs"))
    return parser


if __name__ == "__main__":
    main()
