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
  dpmed prepare data=chexpert data.root=DIR      decode a data set once; goes on where it stopped
  dpmed report outputs/cxr_eps8/RUN              rebuild metrics, tables and plots of a run
  dpmed report RUN --twin RUN                    what privacy costs, by label and group
  dpmed compare RUN RUN                          differences with intervals, paired by patient
  dpmed collect outputs/sweeps/cxr_eps8          one table and one plot of a sweep
  dpmed release RUN --output FOLDER              the weights, the plan and the model card alone
  dpmed predict FOLDER a.png b.dcm               probabilities by a released model
  dpmed evaluate run=RUN data=chestxray14 data.root=DIR   a finished model on other patients
  dpmed overlap --private DIR --public DIR       which images are in both, as they are or changed
  dpmed dashboard --entity ME                    W&B panels over all runs of a project
  dpmed matrix RUN RUN RUN                       each model on every other one's test patients

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

    prepare = commands.add_parser(
        "prepare", help="decode the images of a data set once into the cache that training reads"
    )
    prepare.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="the words that train.py would get, such as data=chexpert data.root=DIR scale=gpu",
    )
    prepare.add_argument(
        "--num-workers", type=int, help="processes; all cores where left out, 0 for none"
    )
    prepare.add_argument(
        "--skipped", type=Path, metavar="FILE", help="write every left-out image here as CSV"
    )
    prepare.set_defaults(run=_prepare)

    report = commands.add_parser(
        "report", help="measure and show a run again from its files, without a model"
    )
    report.add_argument("run_dir", metavar="RUN", help="a run folder; run=RUN is the same")
    report.add_argument(
        "--twin",
        type=Path,
        metavar="RUN",
        help="the same run without DP: differences by label and group, paired by patient",
    )
    report.add_argument(
        "--page-only", action="store_true", help="keep metrics.json; draw the page again"
    )
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

    release = commands.add_parser(
        "release", help="write what may leave a run: weights, plan, statement, named results"
    )
    release.add_argument("run_dir", type=Path, help="a completed run folder")
    release.add_argument("--output", type=Path, required=True, help="a new folder")
    release.add_argument(
        "--results",
        nargs="+",
        default=[],
        metavar="NAME",
        help="results to release too, which epsilon does not cover: auroc, subgroups, gaps, "
        "calibration, external, geometry, thresholds",
    )
    release.add_argument(
        "--weights",
        choices=("last", "average"),
        default="last",
        help="after the last step (default)",
    )
    release.add_argument(
        "--without-guarantee",
        action="store_true",
        help="also a run that guarantees nothing; every file is then stamped NOT PRIVATE",
    )
    release.set_defaults(run=_release)

    predict = commands.add_parser("predict", help="probabilities of images by a released model")
    predict.add_argument("folder", type=Path, help="what dpmed release wrote")
    predict.add_argument(
        "images", type=Path, nargs="+", help="PNG, JPEG or DICOM files, or folders"
    )
    predict.add_argument("--output", type=Path, help="a CSV file; the terminal where left out")
    predict.set_defaults(run=_predict)

    evaluate = commands.add_parser("evaluate", help="a finished model on another data set")
    evaluate.add_argument(
        "words",
        nargs="+",
        metavar="KEY=VALUE",
        help="run=RUN data=NAME and the settings of that data set, as train.py takes them",
    )
    evaluate.add_argument(
        "--split",
        choices=("test", "all"),
        default="test",
        help="the data set's test patients (default), or everyone in it",
    )
    evaluate.set_defaults(run=_evaluate)

    overlap = commands.add_parser(
        "overlap", help="which images of a private set are already in a public corpus"
    )
    for side in ("private", "public"):
        overlap.add_argument(
            f"--{side}",
            nargs="+",
            required=True,
            metavar="WORD",
            help="a folder of images, or data=NAME and its settings as train.py takes them",
        )
    overlap.add_argument("--output", type=Path, default=Path("outputs/overlap"))
    overlap.add_argument("--controls", type=int, default=200, help="synthetic images looked for")
    overlap.add_argument("--planted", type=int, default=100, help="copies that should be found")
    overlap.add_argument("--num-workers", type=int, default=2, help="threads that decode")
    overlap.set_defaults(run=_overlap)

    dashboard = commands.add_parser(
        "dashboard", help="the W&B workspace and report over a project's runs, as code"
    )
    dashboard.add_argument("--project", default="dpmed", help="logger.project of the runs")
    dashboard.add_argument("--entity", default="", help="W&B user or team; needed to publish")
    dashboard.add_argument(
        "--labels",
        nargs="+",
        default=["atelectasis", "cardiomegaly", "pleural_effusion", "pneumonia", "no_finding"],
        help="labels that get a panel",
    )
    dashboard.add_argument(
        "--spec", type=Path, help="write the specification as JSON instead of publishing; offline"
    )
    dashboard.set_defaults(run=_dashboard)

    matrix = commands.add_parser("matrix", help="models of several sites on one another's patients")
    matrix.add_argument(
        "words",
        nargs="+",
        metavar="RUN",
        help="run folders or folders of runs; data=NAME and its settings add one more test site",
    )
    matrix.add_argument("--output", type=Path, default=Path("outputs/matrix"))
    matrix.set_defaults(run=_matrix)
    return parser


def _plan(parsed: argparse.Namespace) -> None:
    from dpmed.compose import compose
    from dpmed.estimate import describe_plan

    print(describe_plan(compose(parsed.overrides)))


def _prepare(parsed: argparse.Namespace) -> None:
    from dpmed.compose import compose
    from dpmed.stages.preparation import prepare_data, write_skipped

    config = compose(parsed.overrides)
    try:
        prepared = prepare_data(config.data, num_workers=parsed.num_workers)
    except KeyboardInterrupt:
        sys.exit("stopped: what is prepared is kept, and the same command goes on from there.")
    print(prepared.summary())
    if parsed.skipped is not None:
        write_skipped(prepared.skipped, parsed.skipped)
    prepared.check()


def _report(parsed: argparse.Namespace) -> None:
    from dpmed.rebuild import rebuild

    folder = _existing(Path(parsed.run_dir.removeprefix("run=")))
    twin = None if parsed.twin is None else _existing(parsed.twin)
    print(rebuild(folder, twin=twin, page_only=parsed.page_only))


def _compare(parsed: argparse.Namespace) -> None:
    from dpmed.report.compare import compare

    runs = [_existing(folder) for folder in parsed.run_dirs]
    print(compare(runs, parsed.output, margin=parsed.margin))


def _collect(parsed: argparse.Namespace) -> None:
    from dpmed.report.collect import collect

    print(collect(_existing(parsed.sweep_dir)))


def _release(parsed: argparse.Namespace) -> None:
    from dpmed.stages.release import release_run

    folder = release_run(
        _existing(parsed.run_dir),
        parsed.output,
        results=parsed.results,
        weights=parsed.weights,
        without_guarantee=parsed.without_guarantee,
    )
    print(folder)


def _predict(parsed: argparse.Namespace) -> None:
    from dpmed.stages.released_model import predict_to_csv

    unreadable = predict_to_csv(parsed.folder, parsed.images, parsed.output or sys.stdout)
    if unreadable:
        sys.exit(f"error: images without a probability: {len(unreadable)}, named above.")


def _evaluate(parsed: argparse.Namespace) -> None:
    runs = [word.removeprefix("run=") for word in parsed.words if word.startswith("run=")]
    if len(runs) != 1:
        raise UserError("name one run: dpmed evaluate run=RUN data=NAME")
    from dpmed.compose import compose_data
    from dpmed.stages.external import evaluate_external

    other = compose_data([word for word in parsed.words if not word.startswith("run=")])
    print(evaluate_external(_existing(Path(runs[0])), other, split=parsed.split))


def _matrix(parsed: argparse.Namespace) -> None:
    from dpmed.compose import compose_data
    from dpmed.stages.matrix import build_matrix

    settings = [word for word in parsed.words if word.lstrip("+").startswith(("data=", "data."))]
    folders = [_existing(Path(word)) for word in parsed.words if word not in settings]
    other = compose_data(settings) if settings else None
    print(build_matrix(folders, other, parsed.output))


def _overlap(parsed: argparse.Namespace) -> None:
    from dpmed.compose import compose_data
    from dpmed.stages.overlap import data_set, find_overlap, folder_of_images

    private, public = (
        data_set(compose_data(words))
        if any(word.startswith("data=") for word in words)
        else folder_of_images(_existing(Path(words[0])))
        for words in (parsed.private, parsed.public)
    )
    page = find_overlap(
        private,
        public,
        parsed.output,
        num_controls=parsed.controls,
        num_planted=parsed.planted,
        num_workers=parsed.num_workers,
    )
    print(page)


def _dashboard(parsed: argparse.Namespace) -> None:
    from dpmed.report.dashboard import publish, write_specification

    where = {"project": parsed.project, "entity": parsed.entity, "labels": parsed.labels}
    if parsed.spec is not None:
        print(write_specification(parsed.spec, **where))
        return
    print("\n".join(publish(**where)))


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder.")
    return folder


if __name__ == "__main__":
    main()
