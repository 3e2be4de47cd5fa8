"""`python -m gateway.audit verify FILE...`: whether the audit record is what was written."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.audit.record import START, Head
from gateway.audit.verification import BrokenChain, verify


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the chain holds, 1 when it does not."""
    parser = argparse.ArgumentParser(prog="python -m gateway.audit", description="Checks the audit record.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("verify", help="find any record that was changed, removed, added or moved")
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="the oldest first")
    command.add_argument(
        "--head", action="append", default=[], type=Head.parse, metavar="SEQUENCE:HASH", help="an end that a log line has kept"
    )
    command.add_argument(
        "--after", default=START, type=Head.parse, metavar="SEQUENCE:HASH", help="the end of older files that are gone"
    )
    given = parser.parse_args(arguments)
    try:
        report = verify(given.files, given.head, given.after)
    except (BrokenChain, OSError) as error:
        print(f"broken: {error}", file=sys.stderr)
        return 1
    torn = f", {report.torn} of them after a write that was cut off" if report.torn else ""
    print(f"{report.records} records{torn}, first {report.first_time or '-'}, last {report.last_time or '-'}")
    print(f"head {report.head}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
