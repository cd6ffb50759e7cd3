"""The files that a newcomer and the tools around the project meet first."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dpmed

ROOT = Path(__file__).parents[1]


def lock_lines():
    text = (ROOT / "requirements.lock").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_lock_pins_every_package_exactly_and_names_no_place():
    for line in lock_lines():
        requirement = Requirement(line)
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), line
        assert requirement.url is None, line


def test_lock_satisfies_pyproject():
    pinned = {canonicalize_name(r.name): r for r in map(Requirement, lock_lines())}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
        *project["build-system"]["requires"],
    ]
    for requirement in map(Requirement, wanted):
        pin = pinned.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not in requirements.lock: run make lock"
        [exact] = pin.specifier
        assert requirement.specifier.contains(exact.version, prereleases=True), requirement


@pytest.mark.parametrize("name", ["torch", "opacus", "timm", "dp-accounting", "lightning"])
def test_what_is_installed_is_what_is_pinned(name):
    assert f"{name}=={version(name).split('+')[0]}" in lock_lines()


def test_make_alone_lists_its_commands():
    listing = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in ("demo", "test", "test-statistics", "lint", "lock", "help"):
        assert f"make {target} " in listing


def test_every_make_target_is_phony_and_explained():
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.M).group(1).split())
    explained = set(re.findall(r"^([a-z-]+):.*## ", text, re.M))
    assert phony == explained


def test_an_old_python_is_refused_with_advice(tmp_path):
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    made = subprocess.run(
        ["make", "install", f"VENV={tmp_path / 'venv'}", f"PYTHON={old}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode != 0
    assert "Python 3.11 or newer" in made.stdout
    assert sys.version_info >= (3, 11)


def test_ci_runs_linters_and_tests():
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text()
    assert "set -euo pipefail" in text
    assert "make lint" in text
    assert "make test" in text


def test_citation_names_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == dpmed.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["title"]
    assert citation["authors"]


def test_licence_is_apache_and_changelog_keeps_its_form():
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert changelog.startswith("# Changelog")
    assert "## [Unreleased]" in changelog


def test_rooms_in_contributing_exist():
    rooms = re.findall(r"^\| `([\w./]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert len(rooms) >= 9
    for room in rooms:
        assert (ROOT / room).exists(), room
