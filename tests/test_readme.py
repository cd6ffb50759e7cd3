"""Every command of the README runs, shrunk by settings; `make`, docker and downloads excepted."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.integration.conftest import ROOT, SMALL, environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXCEPTIONS = ("make", "docker", "git", "cd", "pip", "wandb", "hf")
LABELS = ["atelectasis", "cardiomegaly", "pleural_effusion", "pneumonia", "no_finding"]
FINDINGS = ["Atelectasis", "Cardiomegaly", "Effusion", "Pneumonia", "No Finding"]


def commands() -> list[str]:
    """The commands of the README's `bash` blocks, in order, comments taken off."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    lines = [line.split("  #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's placeholders stand for: RUN, a sweep, FOLDER, DIR, my.csv, image.png."""
    place = tmp_path_factory.mktemp("readme")
    random = np.random.default_rng(0)
    (place / "DIR" / "images").mkdir(parents=True)
    entries, rows = [], []
    for number in range(120):
        name = f"{number:08d}_000.png"
        pixels = random.integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "DIR" / "images" / name)
        finding = FINDINGS[number % 5]
        entries.append(f"{name},{finding},0,{number // 2},58,{'FM'[number % 2]},PA,32,32,0.1,0.1")
        labels = {label: int(number % 5 == index) for index, label in enumerate(LABELS)}
        rows.append({"image": f"DIR/images/{name}", "patient_id": f"q{number // 2}"} | labels)
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    text = "\n".join([header, *(f"{entry}," for entry in entries)])
    (place / "DIR" / "Data_Entry_2017_v2020.csv").write_text(text + "\n", encoding="utf-8")
    pd.DataFrame(rows).to_csv(place / "my.csv", index=False)
    Image.fromarray(random.integers(0, 255, (48, 48), dtype=np.uint8)).save(place / "image.png")
    _run([sys.executable, str(ROOT / "train.py"), *SMALL, "hydra.run.dir=RUN"], place)
    shutil.copytree(place / "RUN", place / "outputs" / "sweeps" / "cxr_eps8" / "seed=0")
    _run([sys.executable, "-m", "dpmed.cli", "release", "RUN", "--output", "FOLDER"], place)
    return place


def _shrunk(command: str) -> list[str]:
    words = shlex.split(command)
    small = list(SMALL)
    if any(word.startswith("data=") for word in words):
        small = [word for word in small if not word.startswith("data.num_patients")]
        small += ["privacy.delta=1e-3"]
        if "data=chestxray14" in words:
            small += ["privacy.num_units=40"]
    if words[:2] == ["python", "train.py"]:
        resumes = any(word.startswith("resume=") for word in words)
        # Flags and sweeps come first, as Hydra wants them; later words win.
        flags = [word for word in words[2:] if word.startswith("-")]
        settings = [word for word in words[2:] if not word.startswith("-")]
        shrunk = (
            [] if resumes else [word for word in small if _key(word) not in map(_key, settings)]
        )
        return [sys.executable, str(ROOT / "train.py"), *flags, *shrunk, *settings]
    assert words[0] == "dpmed", f"the README shows a command that no test knows: {command}"
    arguments = [*words[1:], *small] if words[1] == "plan" else words[1:]
    return [sys.executable, "-m", "dpmed.cli", *arguments]


def _key(word: str) -> str:
    return word.split("=")[0]


TESTED = [command for command in commands() if command.split()[0] not in EXCEPTIONS]


def test_the_readme_shows_commands() -> None:
    assert len(TESTED) >= 20


@pytest.mark.parametrize("command", TESTED)
def test_every_command_of_the_readme_runs(folder: Path, command: str) -> None:
    words = _shrunk(command)
    if "release" in words:
        words[words.index("FOLDER")] = "ANOTHER"
    _run(words, folder)


def _run(words: list[str], folder: Path) -> None:
    process = subprocess.run(
        words, cwd=folder, env=environment(), text=True, timeout=600,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert process.returncode == 0, f"{words}\n{process.stdout}"


def test_files_that_the_readme_shows_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), f"README.md links to {target}, which does not exist"
