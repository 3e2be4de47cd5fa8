"""`python -m training fetch|train|calibrate|export|evaluate|report`."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from serving.metadata import ModelMetadata
from training.calibrate import calibrate
from training.config import PRESETS
from training.evaluate import evaluate, format_scores, load_predict_fn
from training.export import export
from training.fetch import FetchError, fetch
from training.report import report
from training.train import train


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command and run it."""
    arguments = _parser().parse_args(argv)
    match arguments.command:
        case "fetch":
            try:
                print(f"listed: {fetch(arguments.out, arguments.limit)}")
            except FetchError as error:
                raise SystemExit(f"error: {error}") from error
        case "train":
            config = dataclasses.replace(PRESETS[arguments.preset](arguments.data), weights=arguments.weights)
            print(f"weights: {train(config, arguments.out)}")
        case "calibrate":
            calibrate(arguments.run)
        case "export":
            print(f"published: {export(arguments.run, arguments.base, arguments.version)}")
        case "evaluate":
            metadata = ModelMetadata.from_json((arguments.model / "assets.extra" / "metadata.json").read_text())
            scores = evaluate(load_predict_fn(arguments.model), metadata, arguments.data, arguments.cache, arguments.split)
            print(format_scores(scores))
        case "report":
            predict = load_predict_fn(arguments.model)
            report(arguments.model, predict, arguments.data, arguments.cache, arguments.docs, arguments.run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("fetch", help="download pictures of the ISIC archive (needs isic-cli)")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--limit", type=int, default=6000, help="pictures a class")

    command = commands.add_parser("train", help="train a preset; run again to resume")
    command.add_argument("--preset", choices=PRESETS, required=True)
    command.add_argument("--data", required=True, help="a CSV, or a folder with train/<class>/ and test/<class>/")
    command.add_argument(
        "--weights", default="imagenet", help="imagenet (default), none, an .npz file, or a run's model.weights.h5"
    )
    command.add_argument("--out", type=Path, required=True, help="folder of the run")

    command = commands.add_parser("calibrate", help="fit Platt's map, thresholds and the none score on training and validation")
    command.add_argument("--run", type=Path, required=True)

    command = commands.add_parser("export", help="write, check and publish a version")
    command.add_argument("--run", type=Path, required=True)
    command.add_argument("--base", type=Path, default=Path("serving/models/lesion"))
    command.add_argument("--version", type=int, required=True)

    for name, text in (("evaluate", "score a published version"), ("report", "render its model card and figures")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--model", type=Path, required=True, help="folder of the version")
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--cache", type=Path, default=Path("runs/cache"))
        if name == "evaluate":
            command.add_argument("--split", default="test")
        else:
            command.add_argument("--docs", type=Path, default=Path("docs"))
            command.add_argument("--run", type=Path, help="its training run, for the curves")
    return parser


if __name__ == "__main__":
    main()
