"""`python -m serving publish CANDIDATE BASE` and `python -m serving verify VERSION`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.release import ReleaseError, publish, verify


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 1 and a line on stderr when the version is not fit."""
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("publish", help="check an exported version and give it its number in one rename")
    command.add_argument("candidate", type=Path)
    command.add_argument("base", type=Path, help="folder of the model's versions")
    command = commands.add_parser("verify", help="compare a published version with its checksums")
    command.add_argument("version", type=Path)
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "publish":
            print(publish(arguments.candidate, arguments.base))
        else:
            metadata = verify(arguments.version)
            print(f"{arguments.version}: version {metadata.version} of {metadata.name}, checksums match")
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
