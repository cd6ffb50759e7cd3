"""A sweep: means over seeds, the reference without DP, and honest lists of what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from dpmed.errors import UserError
from dpmed.report.collect import collect
from dpmed.report.sweep_cost import cost_table
from dpmed.report.sweep_means import condition_means, student_interval
from dpmed.report.sweep_runs import find_runs, read_sweep
from dpmed.report.sweep_tables import seeds_note
from tests.report.test_page import Page

AUROC = {None: (0.93, 0.94, 0.92), 8.0: (0.88, 0.87, 0.86), 1.0: (0.71, 0.70, 0.75)}


@pytest.fixture
def sweep_dir(finished_run: Path, tmp_path: Path, edit_json: Callable[..., None]) -> Path:
    """Two initialisations, three budgets, three seeds; the second initialisation .02 better."""
    for init, gain in (("scratch", 0.0), ("imagenet", 0.02)):
        for epsilon, values in AUROC.items():
            for seed, value in enumerate(values):
                folder = tmp_path / "sweep" / f"init={init},epsilon={epsilon},seed={seed}"
                _write_run(finished_run, folder, init, epsilon, seed, value + gain, edit_json)
    return tmp_path / "sweep"


def _write_run(
    source: Path,
    folder: Path,
    init: str,
    epsilon: float | None,
    seed: int,
    value: float,
    edit_json: Callable[..., None],
) -> None:
    folder.mkdir(parents=True)
    for name in ("plan.json", "run.json", "metrics.json", "config.yaml"):
        shutil.copy(source / name, folder / name)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config |= {"seed": seed, "init": {"source": init}}
    config["privacy"] |= {"epsilon": epsilon, "enabled": epsilon is not None}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    edit_json(
        folder / "plan.json",
        enabled=epsilon is not None,
        epsilon=epsilon,
        target_epsilon=epsilon,
        private=epsilon is not None,
    )
    test = json.loads((folder / "metrics.json").read_text())["splits"]["test"]
    groups = {name: test["subgroups"][name] for name in ("sex", "site")}
    metrics = {"splits": {"test": {"auroc": test["auroc"], "subgroups": groups}}}
    # Displacement falls with the result, so that their correlation is -1 within each start.
    metrics["geometry"] = {
        "displacement": {"value": 3 - 2 * value, "ci_low": 1.0, "ci_high": 2.0},
        "end_to_end_utility": {"value": value, "ci_low": 0.5, "ci_high": 1.0},
        "utilisation_gap": {"value": 0.05, "ci_low": None, "ci_high": None, "reason": "none"},
        "stages": {},
    }
    macro = test["auroc"]["macro"]
    macro |= {"value": value, "ci_low": value - 0.03, "ci_high": value + 0.03}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def _summary(sweep_dir: Path) -> pd.DataFrame:
    collect(sweep_dir)
    return pd.read_csv(sweep_dir / "summary.csv")


def _condition(summary: pd.DataFrame, init: str, epsilon: float | None) -> pd.Series:
    of_init = summary[summary["init.source"] == init]
    same = of_init["epsilon"].isna() if epsilon is None else of_init["epsilon"] == epsilon
    (row,) = (row for _, row in of_init[same].iterrows())
    return row


def test_means_and_intervals_are_those_of_the_seeds(sweep_dir: Path) -> None:
    summary = _summary(sweep_dir)
    assert len(summary) == 6
    for epsilon, values in AUROC.items():
        row = _condition(summary, "imagenet", epsilon)
        expected = np.array(values) + 0.02
        interval = stats.t.interval(
            0.95, 2, loc=expected.mean(), scale=expected.std(ddof=1) / np.sqrt(3)
        )
        assert row["auroc.macro.patients_low"] == pytest.approx(expected.mean() - 0.03)
        assert row["num_seeds"] == 3
        assert row["interval_over"] == "seeds"
        assert row["auroc.macro"] == pytest.approx(expected.mean())
        assert row["auroc.macro.low"] == pytest.approx(interval[0])
        assert row["auroc.macro.high"] == pytest.approx(min(1.0, interval[1]))


def test_one_seed_keeps_the_interval_over_patients(sweep_dir: Path) -> None:
    for folder in sweep_dir.glob("*seed=[12]"):
        shutil.rmtree(folder)
    row = _condition(_summary(sweep_dir), "scratch", 8.0)
    assert row["interval_over"] == "patients"
    assert row["auroc.macro.low"] == pytest.approx(0.85)
    assert row["auroc.macro.high"] == pytest.approx(0.91)


@pytest.mark.parametrize(
    ("varies", "expected"), [("init", "same test patients"), ("seed", "drawn cohort")]
)
def test_the_cohort_varies_where_seeds_differ_in_their_patients(
    sweep_dir: Path, edit_json: Callable[..., None], varies: str, expected: str
) -> None:
    for folder in find_runs(sweep_dir).values():
        config = yaml.safe_load((folder / "config.yaml").read_text())
        edit_json(folder / "run.json", split_hash=str(config[varies]))
    assert expected in seeds_note(read_sweep(find_runs(sweep_dir)))


def test_group_that_one_seed_cannot_estimate_has_no_interval(sweep_dir: Path) -> None:
    path = sweep_dir / "init=scratch,epsilon=8.0,seed=1" / "metrics.json"
    metrics = json.loads(path.read_text())
    group = metrics["splits"]["test"]["subgroups"]["sex"]["F"]["auroc"]["macro"]
    group |= {"value": None, "ci_low": None, "ci_high": None, "reason": "too few"}
    path.write_text(json.dumps(metrics))
    row = _condition(_summary(sweep_dir), "scratch", 8.0)
    assert pd.notna(row["group.sex.F"])
    assert pd.isna(row["group.sex.F.low"])
    assert pd.notna(row["group.sex.M.low"])


def test_unfinished_and_failed_jobs_are_listed_with_their_reason(sweep_dir: Path) -> None:
    running = sweep_dir / "init=scratch,epsilon=3.0,seed=0"
    shutil.copytree(sweep_dir / "init=scratch,epsilon=8.0,seed=0", running)
    (running / "run.json").write_text(json.dumps({"status": "running"}))
    failed = sweep_dir / "init=dinov3,epsilon=8.0,seed=0"
    failed.mkdir()
    (failed / "error.txt").write_text("init=dinov3 needs a download <b>here</b>\n")
    cut = sweep_dir / "init=scratch,epsilon=1.0,seed=2" / "metrics.json"
    cut.write_text(cut.read_text()[:500])
    html = collect(sweep_dir).read_text()
    page = Page(html)
    assert page.unbalanced == []
    assert "17 finished runs, 3 not collected" in page.text
    assert "status: running" in page.text
    assert "init=dinov3 needs a download <b>here</b>" in page.text
    assert "<b>here" not in html
    assert "metrics.json cannot be read" in page.text
    assert _condition(pd.read_csv(sweep_dir / "summary.csv"), "scratch", 1.0)["num_seeds"] == 2


def test_page_shows_both_honest_summaries_and_the_joint_budget(sweep_dir: Path) -> None:
    text = Page(collect(sweep_dir).read_text()).text
    assert "At epsilon 8 (init imagenet) the mean AUROC is 0.890" in text
    assert "At epsilon 1 (init scratch) the mean AUROC is 0.720" in text
    assert "interval over seeds; over patients 0.860–0.920)" in text
    assert "0.210 below the same model without DP (0.930)" in text
    assert "12 private runs" in text
    assert "at most epsilon 54 " in text


def test_a_swept_number_and_the_model_size_are_axes(
    sweep_dir: Path, edit_json: Callable[..., None]
) -> None:
    """Half of the data stands left of all of it; a model stands where its parameters are."""
    for folder in sweep_dir.iterdir():
        config = yaml.safe_load((folder / "config.yaml").read_text())
        is_large = config["init"]["source"] == "imagenet"
        config["data"]["fraction"] = 1.0 if is_large else 0.5
        config["model"]["name"] = "convnext_tiny" if is_large else "convnext_atto"
        config["init"]["source"] = "scratch"
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        edit_json(folder / "run.json", num_parameters=28_000_000 if is_large else 3_400_000)
    collect(sweep_dir)
    for name, expected in (
        ("auroc_data_fraction", [0.5, 1.0]),
        ("auroc_model_name", [3_400_000, 28_000_000]),
    ):
        points = pd.read_csv(sweep_dir / "figures" / f"{name}.csv")
        assert sorted(points["place"].unique()) == expected
        assert len(points) == 6
        largest = points[points["place"] == expected[1]].sort_values("series")
        without = largest[largest["series"].str.startswith("no DP")]
        assert without["value"].item() == pytest.approx(np.mean(AUROC[None]) + 0.02)
        assert (sweep_dir / "figures" / f"{name}.svg").is_file()
    assert "By setting" in (sweep_dir / "index.html").read_text(encoding="utf-8")


def test_figures_draw_every_mean_and_the_reference(sweep_dir: Path) -> None:
    collect(sweep_dir)
    data = pd.read_csv(sweep_dir / "figures" / "epsilon_auroc.csv")
    scratch = data[data["series"] == "init scratch"].set_index("epsilon")["value"]
    assert scratch.to_dict() == pytest.approx({1.0: 0.72, 8.0: 0.87, np.inf: 0.93})
    assert (sweep_dir / "figures" / "epsilon_auroc_sex_init_scratch.svg").is_file()


def test_collecting_twice_gives_the_same_bytes(sweep_dir: Path) -> None:
    def content() -> dict[str, bytes]:
        collect(sweep_dir)
        files = [*sweep_dir.glob("*.*"), *(sweep_dir / "figures").iterdir()]
        return {path.name: path.read_bytes() for path in files if path.is_file()}

    assert content() == content()


def test_runs_with_a_known_key_are_stamped(sweep_dir: Path, edit_json: Callable[..., None]) -> None:
    for folder in sweep_dir.glob("init=scratch,epsilon=8.0*"):
        edit_json(folder / "plan.json", private=False)
    html = collect(sweep_dir).read_text()
    assert html.count("NOT PRIVATE") >= 1
    assert "8 NOT PRIVATE" in (sweep_dir / "summary.md").read_text()


def test_markdown_table_has_as_many_cells_as_headings(sweep_dir: Path) -> None:
    collect(sweep_dir)
    lines = (sweep_dir / "summary.md").read_text().splitlines()
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_sweep_without_a_finished_run_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "a"
    folder.mkdir(parents=True)
    (folder / "error.txt").write_text("no network")
    text = Page(collect(tmp_path / "sweep").read_text()).text
    assert "No run has finished yet" in text
    assert "no network" in text


def test_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        collect(tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        collect(tmp_path / "missing")


def test_student_interval_covers_at_its_level() -> None:
    """4,000 draws of 3 normal values: coverage .95 within .01 (2.9 sigma, false alarm .4 %)."""
    rng = np.random.default_rng(0)
    draws = rng.normal(0.5, 0.02, size=(4000, 3))
    bounds = np.array([student_interval(values) for values in draws])
    covered = (bounds[:, 0] <= 0.5) & (bounds[:, 1] >= 0.5)
    assert covered.mean() == pytest.approx(0.95, abs=0.01)


def test_the_cost_of_privacy_is_paired_by_seed(sweep_dir: Path) -> None:
    sweep = read_sweep(find_runs(sweep_dir))
    costs = dict(cost_table(sweep, condition_means(sweep)))
    assert len(costs) == 4
    found = costs["epsilon 8, init scratch (3 pairs)"][0]
    expected = np.subtract(AUROC[8.0], AUROC[None])
    assert found.value == pytest.approx(expected.mean())
    low, high = student_interval(expected, limits=(-1, 1))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    shutil.rmtree(sweep_dir / "init=scratch,epsilon=None,seed=2")
    sweep = read_sweep(find_runs(sweep_dir))
    costs = dict(cost_table(sweep, condition_means(sweep)))
    assert costs["epsilon 8, init scratch (2 pairs)"][0].value == pytest.approx(expected[:2].mean())


def test_geometry_of_a_sweep_is_averaged_plotted_and_correlated(sweep_dir: Path) -> None:
    row = _condition(_summary(sweep_dir), "scratch", 8.0)
    assert row["geometry.displacement"] == pytest.approx(3 - 2 * np.mean(AUROC[8.0]))
    assert row["geometry.displacement.high"] > 1
    names = {path.stem for path in (sweep_dir / "figures").glob("*.svg")}
    assert {"epsilon_displacement", "scatter_displacement", "sites"} <= names
    table = pd.read_csv(sweep_dir / "correlations.csv")
    of = table[(table["x"] == "end_to_end_utility") & (table["y"] == "displacement")]
    values = of[of["method"] == "pearson"].set_index("within")["value"]
    assert values.to_numpy() == pytest.approx(-1)
    assert set(values.index) == {"pooled", "dataset", "initialisation"}
    constant = table[table["y"] == "utilisation_gap"]
    assert constant["reason"].str.contains("does not vary").all()
    page = Page((sweep_dir / "index.html").read_text(encoding="utf-8"))
    assert page.unbalanced == []
    assert "What privacy costs, and whom" in page.text


def test_a_file_of_start_weights_counts_by_its_name(sweep_dir: Path) -> None:
    for folder in sweep_dir.glob("init=imagenet*"):
        path = folder / "config.yaml"
        config = yaml.safe_load(path.read_text())
        config["init"] = {"source": "file", "path": f"/somewhere/{folder.name}/weak.safetensors"}
        path.write_text(yaml.safe_dump(config))
    summary = _summary(sweep_dir)
    assert set(summary["init.source"]) == {"scratch", "file weak"}
    assert "somewhere" not in (sweep_dir / "index.html").read_text(encoding="utf-8")
