"""`python -m training train|calibrate|export|evaluate|report|fetch`."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from training.config import PRESETS
from training.train import train


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command and run it."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("train", help="train a preset; run again to resume")
    command.add_argument("--preset", choices=PRESETS, required=True)
    command.add_argument("--data", required=True, help="a CSV, or a folder with train/<class>/ and test/<class>/")
    command.add_argument("--weights", default="imagenet", help="imagenet (default), none, or an .npz file")
    command.add_argument("--out", type=Path, required=True, help="folder of the run")
    arguments = parser.parse_args(argv)
    if arguments.command == "train":
        config = dataclasses.replace(PRESETS[arguments.preset](arguments.data), weights=arguments.weights)
        train(config, arguments.out)


if __name__ == "__main__":
    main()
