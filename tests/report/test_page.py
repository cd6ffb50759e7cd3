"""The page: complete, self-contained, escaped, and free of patients whatever the files hold."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml

from dpmed.report.page import SECTIONS, build_report
from tests.report.conftest import LABELS, make_plan

VOID = {"meta", "link", "img", "br", "hr", "input", "circle", "line", "polyline", "polygon", "rect"}
LOADING = {"src", "srcset", "data", "poster", "action", "background", "xlink:href"}
HOSTILE = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Collects attributes, text, and tags that were opened or closed out of order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def build(run_dir: Path, **options: Path) -> tuple[str, Page]:
    html = build_report(run_dir, **options).read_text(encoding="utf-8")
    return html, Page(html)


def make_twin(run_dir: Path, twin: Path) -> Path:
    """The same run without DP: the same patients, the truth shining through its scores."""
    shutil.copytree(run_dir, twin)
    path = twin / "predictions" / "test.parquet"
    table = pd.read_parquet(path)
    for label in LABELS:
        better = 0.9 * table[f"prob_{label}"] + 0.1 * table[f"label_{label}"].fillna(0)
        table[f"prob_{label}"] = better.astype("float32")
    table.to_parquet(path)
    (twin / "plan.json").write_text(json.dumps(make_plan(epsilon=None)))
    return twin


@pytest.fixture(scope="module")
def built(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page, Path]:
    root = tmp_path_factory.mktemp("built")
    folder = Path(shutil.copytree(finished_run, root / "run"))
    return *build(folder, twin=make_twin(finished_run, root / "no_dp")), folder


def numbers_of(tree: object) -> Iterator[float]:
    if isinstance(tree, dict):
        if isinstance(tree.get("value"), float):
            yield from (tree[name] for name in ("value", "ci_low", "ci_high") if tree[name])
        else:
            for branch in tree.values():
                yield from numbers_of(branch)


def test_tags_are_balanced(built: tuple[str, Page, Path]) -> None:
    _, page, _ = built
    assert page.unbalanced == []
    assert page.open == []


def test_nothing_is_loaded_from_elsewhere(built: tuple[str, Page, Path]) -> None:
    html, page, _ = built
    for tag, name, value in page.attributes:
        if name in LOADING:
            assert value.startswith("data:image/png;base64,"), (tag, name, value[:60])
        if name == "href":
            assert value.startswith("#"), (tag, value)
    assert "@import" not in html
    assert "url(" not in html
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\s*\(", html)


def test_every_section_is_there_and_built(built: tuple[str, Page, Path]) -> None:
    html, _, _ = built
    for section in SECTIONS:
        part = html.split(f'<section id="{section.id}">')[1].split("</section>")[0]
        assert 'class="unavailable"' not in part, section.id


def test_page_holds_every_number_of_metrics(built: tuple[str, Page, Path]) -> None:
    _, page, folder = built
    metrics = json.loads((folder / "metrics.json").read_text())
    test = metrics["splits"]["test"]
    parts = [
        *(test[name] for name in ("auroc", "average_precision", "sensitivity", "oracle")),
        test["subgroups"],
        metrics["calibration"]["test"],
        metrics["geometry"],
        {name: {"auroc": part["auroc"]} for name, part in metrics["gaps"]["test"].items()},
    ]
    expected = {f"{value:.3f}".replace("-", "−") for value in numbers_of(dict(enumerate(parts)))}
    assert len(expected) > 200
    assert [number for number in expected if number not in page.text] == []


def test_page_holds_every_count_of_auroc(built: tuple[str, Page, Path]) -> None:
    _, page, folder = built
    metrics = json.loads((folder / "metrics.json").read_text())
    test = metrics["splits"]["test"]
    entries = [*test["auroc"].values()]
    entries += [g["auroc"][label] for groups in test["subgroups"].values() for g in groups.values()
                for label in g["auroc"] if label != "macro"]  # fmt: skip
    for entry in entries:
        assert f"{entry['num_positive']:,} / {entry['num_negative']:,}" in page.text


def test_page_says_what_is_guaranteed_and_what_not(built: tuple[str, Page, Path]) -> None:
    html, page, folder = built
    plan = json.loads((folder / "plan.json").read_text())
    assert "epsilon 8.00 at delta 6 × 10⁻⁶" in page.text.replace("\u00a0", " ")
    for sentence in (*plan["covered"], *plan["not_covered"]):
        assert sentence in page.text
    for section in SECTIONS:
        head = html.split(f'<section id="{section.id}">')[1].split("</h2>")[0]
        assert ("not covered by ε" in head) == (not section.is_covered), section.id
    assert "NOT PRIVATE" not in page.text


def test_figures_are_also_files(built: tuple[str, Page, Path]) -> None:
    _, _, folder = built
    figures = folder / "report" / "figures"
    names = {path.stem for path in figures.glob("*.svg")}
    assert names == {path.stem for path in figures.glob("*.csv")}
    assert {"auroc", "roc_pneumonia", "subgroups_macro", "epsilon_over_steps"} <= names
    for path in figures.glob("*.svg"):
        assert Page(path.read_text(encoding="utf-8")).unbalanced == [], path.name
    auroc = pd.read_csv(figures / "auroc.csv")
    metrics = json.loads((folder / "metrics.json").read_text())
    written = dict(zip(auroc["name"], auroc["value"], strict=True))
    expected = metrics["splits"]["test"]["auroc"]["pneumonia"]["value"]
    assert written["Pneumonia"] == pytest.approx(expected)


def test_the_twin_is_compared_by_patient_label_and_group(built: tuple[str, Page, Path]) -> None:
    html, _, folder = built
    part = Page(html.split('<section id="twin">')[1].split("</section>")[0]).text
    assert "no_dp (no differential privacy)" in part
    found = json.loads((folder / "report" / "differences_twin.json").read_text())
    for entry in (found["auroc"]["macro"], found["subgroups"]["sex"]["F"]["auroc"]["macro"]):
        assert entry["ci_high"] < 0
        assert f"{entry['value']:.3f}".replace("-", "−") in part
    assert (folder / "report" / "figures" / "differences_twin.svg").is_file()


def test_a_twin_on_other_images_is_refused_in_place(small_run: Path, tmp_path: Path) -> None:
    twin = make_twin(small_run, tmp_path / "no_dp")
    path = twin / "predictions" / "test.parquet"
    pd.read_parquet(path).head(30).to_parquet(path)
    html, page = build(small_run, twin=twin)
    assert "cannot be compared" in page.text
    assert "the image ids do not match" in page.text
    assert "SECRETPATIENT" not in html
    assert "Mean over labels" in page.text


def test_geometry_that_files_do_not_give_says_why(
    small_run: Path, edit_json: Callable[..., None]
) -> None:
    patient = pd.read_parquet(small_run / "predictions" / "test.parquet")["patient_id"][0]
    metrics = json.loads((small_run / "metrics.json").read_text())
    geometry = {"displacement": metrics["geometry"]["displacement"]}
    geometry["unavailable"] = {"stages": f"trained_test_stage1.npy of {patient} is truncated."}
    edit_json(small_run / "metrics.json", geometry=geometry, notes=["No column sx."])
    _, page = build(small_run)
    assert "Please note" in page.text
    assert "No column sx." in page.text
    assert "Stages: trained_test_stage1.npy of [patient] is truncated." in page.text
    assert "Displacement" in page.text


def test_rebuilding_gives_the_same_bytes(small_run: Path) -> None:
    first, _ = build(small_run)
    second, _ = build(small_run)
    assert first == second


def test_no_patient_id_reaches_any_output(run_dir: Path, edit_json: Callable[..., None]) -> None:
    planted = pd.read_parquet(run_dir / "predictions" / "test.parquet")["patient_id"].unique()
    edit_json(
        run_dir / "run.json",
        warnings=[f"duplicate image under patients {planted[0]} and {planted[1]}"],
        skipped_images=[
            {"image": f"images/{planted[2]}_004.png", "reason": f"{planted[2]} broken"}
        ],
        error=f"stopped at {planted[3]}",
    )
    edit_json(run_dir / "data_sheet.json", num_skipped=1, notes=[f"{planted[4]}: age missing"])
    html, page = build(run_dir)
    outputs = [html, *(path.read_text() for path in (run_dir / "report").rglob("*.*"))]
    assert not [name for name in planted for text in outputs if name in text]
    assert "duplicate image under patients [patient] and [patient]" in page.text
    assert "[patient]_004.png" in page.text


def test_image_is_shown_of_declared_synthetic_data_only(
    small_run: Path, edit_json: Callable[..., None]
) -> None:
    run_dir = small_run
    assert "data:image/png" in build(run_dir)[0]
    for value in (False, None, "true"):
        edit_json(run_dir / "data_sheet.json", synthetic=value)
        assert "data:image" not in build(run_dir)[0]
    edit_json(run_dir / "data_sheet.json", synthetic=True)
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    config["data"]["reader"] = "chestxray14"
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    html, page = build(run_dir)
    assert "data:image" not in html
    assert "<img" not in html
    assert "No image of a patient is shown" in page.text


def test_contact_sheet_that_is_no_picture_is_left_out(small_run: Path) -> None:
    run_dir = small_run
    (run_dir / "contact_sheet.png").write_text(HOSTILE)
    assert "data:image" not in build(run_dir)[0]


def test_hostile_names_are_shown_as_text(run_dir: Path, edit_json: Callable[..., None]) -> None:
    metrics = json.loads((run_dir / "metrics.json").read_text())
    test = metrics["splits"]["test"]
    for tree in (test["auroc"], test["roc"], test["subgroups"]["sex"]["F"]["auroc"],
                 metrics["calibration"]["test"]["reliability"]):  # fmt: skip
        tree[HOSTILE] = tree["pneumonia"]
    test["subgroups"][HOSTILE] = {HOSTILE: test["subgroups"]["sex"]["F"]}
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    edit_json(run_dir / "run.json", experiment=HOSTILE, warnings=[HOSTILE], model=HOSTILE)
    edit_json(run_dir / "data_sheet.json", name=HOSTILE, notes=[HOSTILE])
    edit_json(run_dir / "plan.json", statement=HOSTILE, not_covered=[HOSTILE])
    html, page = build(run_dir)
    assert html.count("<script") == 1
    assert page.unbalanced == []
    assert "<script>alert(1)</script>" in page.text
    for path in (run_dir / "report" / "figures").glob("*.svg"):
        assert "<script" not in path.read_text(encoding="utf-8")
    assert "<script" not in (run_dir / "report" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", ["missing", "truncated"])
@pytest.mark.parametrize(
    "name",
    [
        "metrics.json", "plan.json", "run.json", "data_sheet.json", "config.yaml", "ledger.jsonl",
        "predictions/test.parquet", "predictions/validation.parquet", "splits.csv",
    ],
)  # fmt: skip
def test_damaged_file_is_said_in_place(small_run: Path, name: str, damage: str) -> None:
    path = small_run / name
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        # A YAML file that is cut between two lines is a valid shorter one; cut inside a list.
        path.write_bytes(b"data: [1," if name == "config.yaml" else content[:40])
    _, page = build(small_run)
    assert page.unbalanced == []
    sections = {value for tag, key, value in page.attributes if (tag, key) == ("section", "id")}
    assert {section.id for section in SECTIONS if section.id != "twin"} <= sections
    if name in ("metrics.json", "plan.json", "run.json", "data_sheet.json", "config.yaml"):
        assert name in page.text
    if name != "metrics.json":
        assert "AUROC 0." in page.text


@pytest.mark.parametrize("content", ["", "[1, 2]", "{}", "null", "NaN", "\x00"])
def test_file_with_other_content_is_said_in_place(small_run: Path, content: str) -> None:
    for name in ("metrics.json", "plan.json", "run.json", "data_sheet.json", "config.yaml"):
        (small_run / name).write_text(content)
    _, page = build(small_run)
    assert page.unbalanced == []
    assert "GUARANTEE UNKNOWN" in page.text
    assert "Not available. metrics.json" in page.text


def test_report_of_an_empty_folder_is_a_page(tmp_path: Path) -> None:
    _, page = build(tmp_path)
    assert "GUARANTEE UNKNOWN" in page.text
    assert "metrics.json is missing" in page.text


def test_metrics_of_unexpected_shape_leave_the_rest(small_run: Path) -> None:
    run_dir = small_run
    metrics = json.loads((run_dir / "metrics.json").read_text())
    metrics["splits"]["test"]["subgroups"] = {"sex": {"F": 3, "M": ["x"]}}
    metrics["splits"]["test"]["roc"] = {"pneumonia": {"fpr": [0, 1], "tpr": "many"}}
    metrics["calibration"] = [1]
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    _, page = build(run_dir)
    assert page.unbalanced == []
    assert "What is guaranteed" in page.text


def test_null_metric_keeps_its_row_counts_and_reason(run_dir: Path) -> None:
    metrics = json.loads((run_dir / "metrics.json").read_text())
    entry = {
        **dict.fromkeys(("value", "ci_low", "ci_high")),
        "num_positive": 3,
        "num_negative": 9871,
        "reason": "not estimable: 3 positives, fewer than 10",
    }
    metrics["splits"]["test"]["subgroups"]["sex"]["F"]["auroc"]["pneumonia"] = entry
    metrics["splits"]["test"]["auroc"]["pneumonia"] = entry
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    _, page = build(run_dir)
    assert page.text.count("3 / 9,871") >= 2
    assert page.text.count("3 positives, fewer than 10") >= 2
    assert "Not estimable: pneumonia" in page.text


def test_averaged_weights_stand_beside_the_last_ones(run_dir: Path) -> None:
    assert "averaged over steps" not in build(run_dir)[1].text
    metrics = json.loads((run_dir / "metrics.json").read_text())
    entry = {**metrics["splits"]["test"]["auroc"]["macro"], "value": 0.8125}
    metrics["splits"]["test_ema"] = {"auroc": {"macro": entry}}
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    _, page = build(run_dir)
    assert re.search(r"weights averaged over steps.{0,80}0\.812", page.text, flags=re.S)


def test_injected_key_and_missing_dp_are_stamped(
    small_run: Path, edit_json: Callable[..., None]
) -> None:
    run_dir = small_run
    edit_json(run_dir / "plan.json", private=False)
    html, page = build(run_dir)
    assert "<title>NOT PRIVATE" in html
    assert '<p class="stamp"><strong>NOT PRIVATE' in html
    assert "The released weights are differentially private" not in page.text
    edit_json(run_dir / "plan.json", enabled=False, epsilon=None)
    html, page = build(run_dir)
    assert '<p class="stamp"><strong>NO DIFFERENTIAL PRIVACY' in html
    assert "without differential privacy" in page.text


def test_unfinished_run_only_plans(small_run: Path, edit_json: Callable[..., None]) -> None:
    edit_json(small_run / "run.json", status="interrupted")
    _, page = build(small_run)
    assert "This run is not finished (status: interrupted)" in page.text
    assert "Planned, once the run is finished: The released weights" in page.text


def test_ledger_says_what_all_runs_spent_together(
    small_run: Path, edit_json: Callable[..., None]
) -> None:
    _, page = build(small_run)
    assert "All 2 private runs on this data set together have spent epsilon 11.20" in page.text
    assert "400 entries, 1 run in this ledger" in page.text
    budget = {"epsilon": None, "delta": 6e-6, "run_ids": ["a"], "not_private_run_ids": ["b"]}
    edit_json(small_run / "run.json", budget=budget, charged_steps=[3, 4])
    _, page = build(small_run)
    assert "epsilon without bound" in page.text
    assert "releasing one voids this" in page.text
    assert "2 steps were charged a second time" in page.text


def test_image_unit_gives_the_epsilon_of_patients(
    small_run: Path, edit_json: Callable[..., None]
) -> None:
    run_dir = small_run
    edit_json(run_dir / "plan.json", unit="image", patient_epsilon=[[2, 17.7392], [5, 54.78]])
    _, page = build(run_dir)
    assert "each training image, not each patient" in page.text
    assert "2 17.74" in page.text


def test_secrets_of_the_configuration_are_hidden(small_run: Path) -> None:
    run_dir = small_run
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    config["privacy"]["injected_key"] = "deadbeef" * 8
    config["logger"] = {"api_key": "wandb-secret", "name": "csv"}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    html, _ = build(run_dir)
    assert "deadbeef" not in html
    assert "wandb-secret" not in html


def test_report_does_not_import_torch() -> None:
    code = (
        "import sys, dpmed.report.page, dpmed.report.collect, dpmed.report.tables\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_page_stays_small(built: tuple[str, Page, Path]) -> None:
    html, _, _ = built
    assert len(html) < 1_000_000
