"""The ledger: durable before the update, over-counting after a crash, shared by runs."""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dpmed.errors import UserError
from dpmed.privacy import ledger as ledger_module
from dpmed.privacy.accounting import Mechanism, compose_epsilon, epsilon_pld
from dpmed.privacy.ledger import Ledger

STEP = Mechanism(noise_multiplier=1.1, sample_rate=0.02, num_steps=1)


def reserve(
    ledger: Ledger,
    step: int,
    *,
    run_id: str = "a",
    key_id: str = "key",
    fingerprint: str = "same",
    mechanism: Mechanism = STEP,
    private: bool = True,
) -> bool:
    return ledger.reserve(
        run_id=run_id,
        step=step,
        key_id=key_id,
        mechanism=mechanism,
        fingerprint=fingerprint,
        private=private,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledgers" / "study.jsonl")


def test_an_unused_ledger_has_spent_nothing(ledger: Ledger) -> None:
    assert ledger.composed_epsilon(1e-5) == 0
    assert not ledger.path.exists()


def test_the_steps_of_a_run_cost_what_the_plan_says(ledger: Ledger) -> None:
    for step in range(30):
        assert reserve(ledger, step)
    spent = Ledger(ledger.path).spent(delta=1e-5)
    assert spent.num_steps == 30
    assert spent.run_ids == ("a",)
    assert spent.epsilon == epsilon_pld(
        noise_multiplier=1.1, sample_rate=0.02, num_steps=30, delta=1e-5
    )


def test_an_exact_replay_is_free_also_for_another_process(ledger: Ledger) -> None:
    assert reserve(ledger, 0)
    before = ledger.path.read_bytes()
    assert not reserve(ledger, 0)
    assert not reserve(Ledger(ledger.path), 0)
    assert ledger.path.read_bytes() == before


def test_a_replay_under_another_key_is_charged_again(ledger: Ledger) -> None:
    reserve(ledger, 0)
    assert reserve(ledger, 0, key_id="fresh")
    assert ledger.spent(delta=1e-5).num_steps == 2
    assert ledger.reserved_steps("a") == (0,)
    assert ledger.epsilon_of_run("a", delta=1e-5) == epsilon_pld(
        noise_multiplier=1.1, sample_rate=0.02, num_steps=2, delta=1e-5
    )


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "other"},
        {"run_id": "b"},
        {"mechanism": Mechanism(noise_multiplier=1.0, sample_rate=0.02, num_steps=1)},
    ],
)
def test_equal_noise_on_other_sums_is_refused(ledger: Ledger, change: dict[str, object]) -> None:
    reserve(ledger, 0)
    with pytest.raises(UserError, match="fresh key"):
        reserve(ledger, 0, **change)  # type: ignore[arg-type]
    assert ledger.spent(delta=1e-5).num_steps == 1


def test_runs_of_one_data_set_are_composed(ledger: Ledger) -> None:
    other = Mechanism(noise_multiplier=2.0, sample_rate=0.1, num_steps=1)
    for step in range(20):
        reserve(ledger, step, run_id="a", key_id="one")
        reserve(ledger, step, run_id="b", key_id="two", mechanism=other)
    expected = compose_epsilon(
        [
            Mechanism(noise_multiplier=1.1, sample_rate=0.02, num_steps=20),
            Mechanism(noise_multiplier=2.0, sample_rate=0.1, num_steps=20),
        ],
        delta=1e-5,
    )
    assert ledger.composed_epsilon(1e-5) == expected
    assert ledger.epsilon_of_run("a", delta=1e-5) < expected
    assert ledger.spent(delta=1e-5).run_ids == ("a", "b")


def test_runs_without_secret_noise_are_listed_and_not_priced(ledger: Ledger) -> None:
    reserve(ledger, 0)
    reserve(ledger, 0, run_id="test", private=False)
    spent = ledger.spent(delta=1e-5)
    assert spent.num_steps == 1
    assert spent.not_private_run_ids == ("test",)
    assert ledger.epsilon_of_run("test", delta=1e-5) == math.inf


@pytest.mark.parametrize("num_bytes_lost", [1, 30, 100])
def test_a_line_cut_off_by_a_crash_is_counted(ledger: Ledger, num_bytes_lost: int) -> None:
    for step in range(3):
        reserve(ledger, step)
    content = ledger.path.read_bytes()
    ledger.path.write_bytes(content[:-num_bytes_lost])
    after_crash = Ledger(ledger.path)
    assert after_crash.spent(delta=1e-5).num_steps == 3
    assert after_crash.spent(delta=1e-5).num_damaged_lines == 1
    # Going on must not glue a new entry to the damaged one, and the replay is not lost.
    assert reserve(after_crash, 2)
    assert reserve(after_crash, 3)
    reread = Ledger(ledger.path).spent(delta=1e-5)
    whole_line_survived = num_bytes_lost == 1
    assert reread.num_damaged_lines == (0 if whole_line_survived else 1)
    assert reread.num_steps == (4 if whole_line_survived else 5)


def test_a_damaged_line_costs_as_much_as_the_dearest_step(ledger: Ledger) -> None:
    cheap = Mechanism(noise_multiplier=5.0, sample_rate=0.01, num_steps=1)
    reserve(ledger, 0)
    reserve(ledger, 0, run_id="b", key_id="two", mechanism=cheap)
    with ledger.path.open("a") as file:
        file.write('{"run_id": "c", "st\n')
    assert ledger.composed_epsilon(1e-5) == compose_epsilon(
        [
            Mechanism(noise_multiplier=1.1, sample_rate=0.02, num_steps=2),
            Mechanism(noise_multiplier=5.0, sample_rate=0.01, num_steps=1),
        ],
        delta=1e-5,
    )


def test_a_damaged_line_without_a_price_promises_nothing(ledger: Ledger) -> None:
    ledger.path.parent.mkdir()
    ledger.path.write_text('{"run_id"')
    assert ledger.composed_epsilon(1e-5) == math.inf


def test_a_ledger_that_lost_lines_is_refused(ledger: Ledger) -> None:
    reserve(ledger, 0)
    reserve(ledger, 1)
    ledger.path.write_bytes(ledger.path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(UserError, match="became shorter"):
        reserve(ledger, 2)


def test_the_entry_is_flushed_before_reserve_returns(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File content and, for a new file, the entries of the file and of its new folder."""
    flushed: list[str] = []
    real = os.fsync

    def recording(descriptor: int) -> None:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        content = Path(target).read_text() if Path(target).is_file() else ""
        flushed.append(f"{Path(target).name}:{content.count(chr(10))}")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    reserve(ledger, 0)
    assert flushed == [f"{ledger.path.parent.parent.name}:0", "ledgers:0", "study.jsonl:1"]
    reserve(ledger, 1)
    assert flushed[3:] == ["study.jsonl:2"]


def test_a_full_disk_stops_the_step(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve(ledger, 0)
    monkeypatch.setattr(ledger_module.os, "write", lambda descriptor, content: len(content) - 10)
    with pytest.raises(UserError, match="The step was not taken"):
        reserve(ledger, 1)
    monkeypatch.undo()
    assert ledger.spent(delta=1e-5).num_steps == 1


def test_an_impossible_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"privacy\.ledger_dir"):
        reserve(Ledger(tmp_path / "file" / "study.jsonl"), 0)


def test_a_kill_between_reservation_and_update_counts_the_step(tmp_path: Path) -> None:
    """A process reserves steps 0 to 2 and is killed before it updates with step 2."""
    path, updates = tmp_path / "study.jsonl", tmp_path / "updates"
    process = subprocess.Popen(
        [sys.executable, "-c", _TRAINER, str(path), str(updates), "2"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"reserved 2\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert updates.read_text().splitlines() == ["0", "1"]
    assert Ledger(path).reserved_steps("run") == (0, 1, 2)
    assert Ledger(path).spent(delta=1e-5).num_steps == 3


_TRAINER = """
import sys, time
from pathlib import Path
from dpmed.privacy.accounting import Mechanism
from dpmed.privacy.ledger import Ledger
ledger, updates, hang_at = Ledger(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
step_mechanism = Mechanism(noise_multiplier=1.1, sample_rate=0.02, num_steps=1)
for step in range(10):
    ledger.reserve(run_id="run", step=step, key_id="key", mechanism=step_mechanism,
                   fingerprint="f", private=True)
    if step == hang_at:
        print("reserved", step, flush=True)
        time.sleep(600)
    with updates.open("a") as file:
        file.write(f"{step}\\n")
"""


def test_a_reservation_waits_for_the_lock(ledger: Ledger) -> None:
    """Otherwise two runs could use one key's noise for the same step, each unseen by the other."""
    reserve(ledger, 0)
    waiting = threading.Thread(target=reserve, args=(ledger, 1))
    with ledger.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting.start()
        waiting.join(timeout=0.5)
        assert waiting.is_alive()
        assert len(file.readlines()) == 1
    waiting.join(timeout=30)
    assert ledger.reserved_steps("a") == (0, 1)


def test_two_runs_at_once_lose_nothing(ledger: Ledger) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(ledger.path), run_id])
        for run_id in ("one", "two")
    ]
    while any(writer.poll() is None for writer in writers):
        ledger.reserved_steps("one")
        time.sleep(0.01)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert ledger.reserved_steps("one") == ledger.reserved_steps("two") == tuple(range(150))
    spent = ledger.spent(delta=1e-5)
    assert (spent.num_steps, spent.num_damaged_lines) == (300, 0)
    assert all(json.loads(line) for line in ledger.path.read_text().splitlines())


_WRITER = """
import sys
from dpmed.privacy.accounting import Mechanism
from dpmed.privacy.ledger import Ledger
ledger = Ledger(sys.argv[1])
step_mechanism = Mechanism(noise_multiplier=1.1, sample_rate=0.02, num_steps=1)
for step in range(150):
    ledger.reserve(run_id=sys.argv[2], step=step, key_id=sys.argv[2], mechanism=step_mechanism,
                   fingerprint="f", private=True)
"""


def test_ten_thousand_steps_are_cheap(ledger: Ledger) -> None:
    """Each step looks at what is new in the file, not at all of it: no quadratic cost."""
    ledger.path.parent.mkdir()
    lines = [
        json.dumps(
            {
                "run_id": "old", "step": step, "key_id": "old", "fingerprint": "f",
                "noise_multiplier": 1.1, "sample_rate": 0.02, "private": True, "time": "",
            }
        )
        for step in range(10_000)
    ]  # fmt: skip
    ledger.path.write_text("\n".join(lines) + "\n")
    reserve(ledger, 0)
    start = time.process_time()
    for step in range(1, 200):
        reserve(ledger, step)
    assert (time.process_time() - start) / 199 < 0.005
    assert len(ledger.reserved_steps("old")) == 10_000


def test_the_copy_for_a_run_folder_holds_its_lines_alone(ledger: Ledger) -> None:
    reserve(ledger, 0)
    reserve(ledger, 0, run_id="b", key_id="two")
    (line,) = ledger.lines_of_run("a").splitlines()
    assert json.loads(line)["run_id"] == "a"
    assert json.loads(line)["step"] == 0
