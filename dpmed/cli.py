"""The `dpmed` command: what a user does before and after training.

Each subcommand imports what it needs when it runs, so that `--help` answers at once. Training
itself is `python train.py`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from dpmed import __version__
from dpmed.errors import UserError

_EPILOG = """\
examples:
  dpmed plan experiment=cxr_eps8                 the guarantee and cost of a run, before any data
  dpmed plan data=manifest data.id=my-hospital data.path=my.csv privacy.num_units=4000
  dpmed report outputs/cxr_eps8/RUN              rebuild the page of a run from its files
  dpmed compare RUN RUN                          differences with intervals, paired by patient
  dpmed collect outputs/sweeps/cxr_eps8          one table and one plot of a sweep

training: python train.py --help
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line; a `UserError` becomes one message and a non-zero exit."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        parsed.run(parsed)
    except UserError as error:
        sys.exit(f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dpmed",
        description="Plan private training, and report on finished runs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dpmed {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    plan = commands.add_parser(
        "plan", help="print the guarantee, the noise, and the expected time and memory of a run"
    )
    plan.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="the words that train.py would get"
    )
    plan.set_defaults(run=_plan)

    report = commands.add_parser("report", help="rebuild the report of a run from its files")
    report.add_argument("run_dir", type=Path, help="a run folder")
    report.set_defaults(run=_report)

    compare = commands.add_parser("compare", help="set runs side by side, paired by patient")
    compare.add_argument("run_dirs", type=Path, nargs="+", help="two or more run folders")
    compare.add_argument("--output", type=Path, default=Path("outputs/comparison"))
    compare.add_argument(
        "--margin", type=float, help="declared AUROC difference that counts as equivalent"
    )
    compare.set_defaults(run=_compare)

    collect = commands.add_parser("collect", help="gather a sweep into one table and one plot")
    collect.add_argument("sweep_dir", type=Path, help="a folder of run folders")
    collect.set_defaults(run=_collect)
    return parser


def _plan(parsed: argparse.Namespace) -> None:
    from dpmed.compose import compose
    from dpmed.estimate import describe_plan

    print(describe_plan(compose(parsed.overrides)))


def _report(parsed: argparse.Namespace) -> None:
    from dpmed.report.page import build_report

    print(build_report(_existing(parsed.run_dir)))


def _compare(parsed: argparse.Namespace) -> None:
    from dpmed.report.compare import compare

    runs = [_existing(folder) for folder in parsed.run_dirs]
    print(compare(runs, parsed.output, margin=parsed.margin))


def _collect(parsed: argparse.Namespace) -> None:
    from dpmed.report.collect import collect

    print(collect(_existing(parsed.sweep_dir)))


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder.")
    return folder


if __name__ == "__main__":
    main()
