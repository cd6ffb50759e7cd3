"""What can be known of the container images without a container engine: the Dockerfile itself."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def instructions():
    """(keyword, arguments) of every instruction, continuation lines joined, comments left out."""
    text = (ROOT / "docker" / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages():
    """Name of each stage: its base and its instructions, in the order of the file."""
    found = {}
    for keyword, arguments in instructions():
        if keyword == "FROM":
            base, _, name = arguments.partition(" AS ")
            current = found[name] = {"base": base, "steps": []}
        else:
            current["steps"].append((keyword, arguments))
    return found


def lineage(target):
    """The steps of a stage and of all the stages that it is built from."""
    stage = stages()[target]
    inherited = lineage(stage["base"]) if stage["base"] in stages() else []
    return inherited + stage["steps"]


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_targets_run_unprivileged_and_start_training(target):
    steps = lineage(target)
    users = [arguments for keyword, arguments in steps if keyword == "USER"]
    assert users
    assert users[-1].split(":")[0] not in {"root", "0"}
    last_user = max(i for i, (keyword, _) in enumerate(steps) if keyword == "USER")
    assert not [step for step in steps[last_user:] if step[0] == "RUN"]
    assert ("ENTRYPOINT", '["python", "train.py"]') in steps
    assert ("VOLUME", '["/work/outputs"]') in steps


def test_outside_images_are_pinned():
    bases = {stage["base"] for stage in stages().values()} - stages().keys()
    assert bases
    for base in bases:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+-[\w-]+", base), base


def test_every_copied_path_exists_and_reaches_the_builder():
    allowed = (ROOT / ".dockerignore").read_text().split()
    for keyword, arguments in instructions():
        words = shlex.split(arguments)
        if keyword != "COPY" or words[0].startswith("--from"):
            assert keyword != "ADD"
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in allowed, source


def test_copies_between_stages_name_an_earlier_stage():
    seen = []
    for name, stage in stages().items():
        for keyword, arguments in stage["steps"]:
            if keyword == "COPY" and arguments.startswith("--from="):
                assert arguments.split()[0].removeprefix("--from=") in seen
        seen.append(name)


def test_packages_come_from_the_lock_alone():
    for keyword, arguments in instructions():
        if keyword != "RUN":
            continue
        for command in re.split(r"&&", arguments):
            if "pip install" in command:
                assert re.search(r"--requirement \S+\.lock|--no-deps \.", command), command


def test_cpu_image_takes_cuda_out_and_nothing_else():
    """The two grep patterns of the Dockerfile, applied to the lock that is shipped."""
    [split] = [a for k, a in instructions() if k == "RUN" and "torch.lock" in a and "grep" in a]
    keep, drop = re.findall(r"grep -v?E '([^']+)'", split)
    names = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line]
    torch_lock = [name for name in names if re.search(keep, name)]
    dropped = [name for name in names if re.search(drop, name)]
    assert [name.split("==")[0] for name in torch_lock] == ["torch", "torchvision"]
    assert all(name in torch_lock or "sys_platform" in name for name in dropped)
    assert not [name for name in names if "sys_platform" in name and name not in dropped]
