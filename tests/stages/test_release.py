"""What leaves a run by `dpmed release`, and that the released model says what the run said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image

import dpmed
from dpmed.cli import main
from dpmed.config import RunConfig
from dpmed.errors import UserError
from dpmed.stages.release import release_run
from tests.stages.conftest import LABELS, change, patients_of


@pytest.fixture(scope="module")
def folder(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, released with its thresholds."""
    output = tmp_path_factory.mktemp("released") / "model"
    return release_run(finished_run, output, results=["thresholds"], without_guarantee=True)


@pytest.fixture
def private_run(finished_run: Path, private_plan: Path, tmp_path: Path) -> Path:
    """A copy of the run that claims a guarantee."""
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    shutil.copy(private_plan, copy / "plan.json")
    return copy


def test_a_private_run_leaves_without_any_result(private_run: Path, tmp_path: Path) -> None:
    output = release_run(private_run, tmp_path / "out")
    assert sorted(path.name for path in output.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "plan.json",
    ]
    card = (output / "README.md").read_text(encoding="utf-8")
    statement = json.loads((output / "plan.json").read_text())["statement"]
    assert all(line in card for line in statement.splitlines())
    assert "NOT PRIVATE" not in card
    assert "differential-privacy" in yaml.safe_load(card.split("---")[1])["tags"]
    content = b"".join(path.read_bytes() for path in output.iterdir())
    assert not [name for name in patients_of(private_run) if name.encode() in content]
    auroc = json.loads((private_run / "metrics.json").read_text())["splits"]["test"]["auroc"]
    assert f"{auroc['macro']['value']:.3f}" not in card
    assert "threshold" not in json.dumps(json.loads((output / "plan.json").read_text())["covered"])
    assert json.loads((output / "config.json").read_text())["dpmed"]["thresholds"] is None


def test_named_results_leave_and_no_others(private_run: Path, tmp_path: Path) -> None:
    output = release_run(private_run, tmp_path / "out", results=["auroc", "subgroups"])
    results = json.loads((output / "results.json").read_text())
    assert sorted(results) == ["auroc", "covered_by_epsilon", "subgroups"]
    card = (output / "README.md").read_text(encoding="utf-8")
    assert f"{results['auroc']['macro']['value']:.3f}" in card
    assert "epsilon does not cover these figures" in card


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "interrupted"}, "not complete .status: interrupted.*resume="),
        ({"steps_done": 1}, "took 1 of 2 steps"),
    ],
)
def test_an_unfinished_run_is_refused(
    private_run: Path, tmp_path: Path, fields: dict[str, object], expected: str
) -> None:
    change(private_run / "run.json", **fields)
    with pytest.raises(UserError, match=expected):
        release_run(private_run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_key_that_is_still_there_and_a_changed_plan_are_refused(
    private_run: Path, tmp_path: Path
) -> None:
    (private_run / "private").mkdir(exist_ok=True)
    (private_run / "private" / "key").write_bytes(b"k")
    with pytest.raises(UserError, match="still holds the secret key"):
        release_run(private_run, tmp_path / "out")
    change(private_run / "plan.json", epsilon=1.0)
    with pytest.raises(UserError, match="changed after it was written"):
        release_run(private_run, tmp_path / "out")


def test_a_run_without_guarantee_is_refused_or_stamped(
    finished_run: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"without differential privacy.*--without-guarantee"):
        release_run(finished_run, tmp_path / "out")
    assert "**NOT PRIVATE.**" in (folder / "README.md").read_text(encoding="utf-8")
    own = json.loads((folder / "config.json").read_text())["dpmed"]
    assert own["private"] is False
    assert own["privacy"] is None
    with pytest.raises(UserError, match=r"--results aurc.*Did you mean 'auroc'"):
        release_run(finished_run, tmp_path / "out", results=["aurc"], without_guarantee=True)
    with pytest.raises(UserError, match="exists already"):
        release_run(finished_run, folder, without_guarantee=True)


def test_the_released_model_repeats_the_predictions_of_the_run(
    folder: Path, finished_run: Path, run_config: RunConfig
) -> None:
    model = dpmed.load(folder)
    expected = pd.read_parquet(finished_run / "predictions" / "test.parquet")
    root = Path(str(run_config.data.path)).parent
    found = model.predict([root / name for name in expected["image"]])
    for label in LABELS:
        np.testing.assert_allclose(found[label], expected[f"prob_{label}"], atol=1e-6)
    assert found["no_finding"].nunique() > 10
    pixels = np.asarray(Image.open(root / expected["image"][0]))
    np.testing.assert_allclose(model.predict(pixels), found.iloc[:1], atol=1e-6)
    with pytest.raises(UserError, match="image 0 is an array of shape"):
        model.predict(np.zeros((3, 8, 8), np.uint8))


def test_timm_loads_the_same_weights(folder: Path) -> None:
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.rand(2, 1, 32, 32)
    normalised = (images - plain.pretrained_cfg["mean"][0]) / plain.pretrained_cfg["std"][0]
    with torch.inference_mode():
        torch.testing.assert_close(plain(normalised), dpmed.load(folder).model(images))


def test_predict_goes_on_after_a_broken_file_and_says_so(
    folder: Path, run_config: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = next(Path(str(run_config.data.path)).parent.glob("*.png"))
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(good, images / "a.png")
    (images / "b.png").write_bytes(good.read_bytes()[:200])
    words = ["predict", str(folder), str(images), str(tmp_path / "c.txt")]
    with pytest.raises(SystemExit, match="images without a probability: 2"):
        main([*words, "--output", str(tmp_path / "out.csv")])
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["image"].tolist() == [str(images / "a.png")]
    assert set(table.columns) == {"image", *LABELS, *(f"{label}_positive" for label in LABELS)}
    assert "b.png" in caplog.text
    assert "c.txt" in caplog.text
    main(["predict", str(folder), str(images / "a.png"), "--output", str(tmp_path / "one.csv")])
    with pytest.raises(SystemExit, match="no released model"):
        main(["predict", str(tmp_path), str(good)])


def test_changed_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    with (tmp_path / "copy" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="not the file that config"):
        dpmed.load(tmp_path / "copy")
