"""The budget ledger of a data set: every noisy step of every run on it, on disk before it happens.

One file of JSON lines a data set, shared by all runs and sweeps. Training reserves a step, and only
then updates the weights with it, so that a crash can over-count and never under-count. Nothing is
ever removed. What is read back is composed by PLD.

It must hold nothing of a patient, and no key: only commitments to keys.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dpmed.errors import UserError
from dpmed.privacy.accounting import Mechanism, compose_epsilon
from dpmed.privacy.durable import make_folder, sync_folder
from dpmed.privacy.ledger_lines import LedgerContent, Reservation, to_line

# With more kinds of steps than this, the composition uses the faster, slightly higher grid.
_NUM_FINE_MECHANISMS = 4


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What all runs on a data set have cost together.

    Args:
        epsilon: of all private steps, by plain PLD composition, at `delta`.
        delta: as asked for.
        num_steps: private steps charged, damaged lines included.
        num_damaged_lines: lines that a crash cut off, charged as the dearest step of the ledger.
        run_ids: private runs.
        not_private_run_ids: runs without secret noise; were their weights released too, `epsilon`
            would promise nothing.
    """

    epsilon: float
    delta: float
    num_steps: int
    num_damaged_lines: int
    run_ids: tuple[str, ...]
    not_private_run_ids: tuple[str, ...]


class Ledger:
    """The ledger of one data set.

    Guarantee:
        When `reserve` returns, the step is on disk: written in one append under an exclusive lock,
        and flushed by fsync together with the folder entries of a new file. `spent` counts every
        reservation once, and counts what it cannot read.

        The composition holds for runs whose settings were fixed before the first of them was
        looked at, such as a grid. Settings chosen after looking at results are outside it.

    Example:
        >>> ledger = Ledger(Path("outputs/ledger/nih14.jsonl"))
        >>> ledger.reserve(
        ...     run_id="run-1", step=0, key_id=stream.key_id, mechanism=plan.step_mechanism,
        ...     fingerprint="0123", private=plan.private,
        ... )
        True
    """

    def __init__(self, path: Path | str) -> None:
        """Nothing is opened or created yet.

        Args:
            path: one file a data set; its folder is made where needed.
        """
        self.path = Path(path)
        self._known = LedgerContent()

    def reserve(
        self,
        *,
        run_id: str,
        step: int,
        key_id: str,
        mechanism: Mechanism,
        fingerprint: str,
        private: bool,
    ) -> bool:
        """Charge a step, durably, before the update that spends it.

        Args:
            run_id: as in `Reservation`.
            step: as in `Reservation`.
            key_id: as in `Reservation`.
            mechanism: the step's noise multiplier and sample rate (`num_steps` is 1).
            fingerprint: as in `Reservation`.
            private: as in `Reservation`.

        Returns:
            False where the same reservation was there already: a replay, which costs nothing.

        Raises:
            UserError: the file cannot be written, or the key was used for this step before under
                other conditions. Equal noise on different sums would cancel: that is no replay
                and no second charge either, it must not happen.
        """
        assert mechanism.num_steps == 1, "a reservation is one logical step"
        reservation = Reservation(
            run_id=run_id,
            step=int(step),
            key_id=key_id,
            fingerprint=fingerprint,
            noise_multiplier=mechanism.noise_multiplier,
            sample_rate=mechanism.sample_rate,
            private=private,
        )
        with self._locked(fcntl.LOCK_EX) as descriptor:
            self._catch_up(descriptor)
            if reservation in self._known.reservations:
                return False
            self._refuse_reused_key(reservation)
            self._append(descriptor, reservation)
            self._catch_up(descriptor)
        assert reservation in self._known.reservations
        return True

    def spent(self, *, delta: float) -> Spent:
        """What all runs have cost together so far."""
        content = self._read()
        private = [entry for entry in content.reservations if entry.private]
        counts = Counter((entry.noise_multiplier, entry.sample_rate) for entry in private)
        return Spent(
            epsilon=_epsilon(counts, content.num_damaged_lines, delta),
            delta=delta,
            num_steps=len(private) + content.num_damaged_lines,
            num_damaged_lines=content.num_damaged_lines,
            run_ids=_run_ids(private),
            not_private_run_ids=_run_ids(e for e in content.reservations if not e.private),
        )

    def composed_epsilon(self, delta: float) -> float:
        """Epsilon of all private runs on the data set together; see `Spent`."""
        return self.spent(delta=delta).epsilon

    def epsilon_of_run(self, run_id: str, *, delta: float) -> float:
        """Epsilon of one run, with the steps that it was charged for twice; infinite if seeded."""
        entries = [entry for entry in self._read().reservations if entry.run_id == run_id]
        if not all(entry.private for entry in entries):
            return math.inf
        counts = Counter((entry.noise_multiplier, entry.sample_rate) for entry in entries)
        return _epsilon(counts, 0, delta)

    def reserved_steps(self, run_id: str) -> tuple[int, ...]:
        """The logical steps that a run has reserved under any key, ascending."""
        entries = self._read().reservations
        return tuple(sorted({entry.step for entry in entries if entry.run_id == run_id}))

    def lines_of_run(self, run_id: str) -> str:
        """The ledger's lines of one run, for the copy in its folder."""
        entries = self._read().reservations
        return "".join(line + "\n" for entry, line in entries.items() if entry.run_id == run_id)

    def _read(self) -> LedgerContent:
        if self.path.exists():
            with self._locked(fcntl.LOCK_SH) as descriptor:
                self._catch_up(descriptor)
        return self._known.with_cut_off_line_counted()

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[int]:
        try:
            make_folder(self.path.parent)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(_cannot_write(self.path, error)) from error
        try:
            fcntl.flock(descriptor, kind)
            if os.fstat(descriptor).st_size == 0:
                # Whoever created the file may have died before its entry was flushed.
                sync_folder(self.path.parent)
            yield descriptor
        finally:
            os.close(descriptor)

    def _catch_up(self, descriptor: int) -> None:
        """Read what this and other processes have added since the last look."""
        size = os.fstat(descriptor).st_size
        if size < self._known.num_bytes:
            raise UserError(
                f"{self.path} became shorter: budget that was spent is no longer recorded. Restore "
                "the file from a backup before training on."
            )
        added = b""
        while len(added) < size - self._known.num_bytes:
            added += os.pread(
                descriptor,
                size - self._known.num_bytes - len(added),
                self._known.num_bytes + len(added),
            )
        self._known.add(added)

    def _append(self, descriptor: int, reservation: Reservation) -> None:
        # A line that a crash cut off ends here, and stays in the file as one damaged line.
        text = ("\n" if self._known.cut_off else "") + to_line(reservation) + "\n"
        content = text.encode()
        try:
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError as error:
            raise UserError(_cannot_write(self.path, error)) from error

    def _refuse_reused_key(self, reservation: Reservation) -> None:
        other = self._known.by_key.get((reservation.key_id, reservation.step))
        if other is None or not reservation.private:
            return
        raise UserError(
            f"Step {reservation.step} of run {reservation.run_id} would use noise that "
            f"{self.path} records for step {other.step} of run {other.run_id} under other "
            "settings, data or code. Equal noise on different sums would cancel and reveal "
            "patients: go on with a fresh key."
        )


def _epsilon(counts: Counter[tuple[float, float]], num_damaged: int, delta: float) -> float:
    if num_damaged and not counts:
        # A line was cut off before any other was written: there is no price to charge it at.
        return math.inf
    if num_damaged:
        dearest = (min(noise for noise, _ in counts), max(rate for _, rate in counts))
        counts = counts + Counter({dearest: num_damaged})
    mechanisms = [
        Mechanism(noise_multiplier=noise, sample_rate=rate, num_steps=num_steps)
        for (noise, rate), num_steps in sorted(counts.items())
    ]
    coarsen = 1 if len(mechanisms) <= _NUM_FINE_MECHANISMS else 10
    return compose_epsilon(mechanisms, delta=delta, coarsen=coarsen)


def _run_ids(reservations: Iterator[Reservation] | list[Reservation]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry.run_id for entry in reservations))


def _cannot_write(path: Path, error: OSError) -> str:
    return (
        f"The budget ledger {path} cannot be written ({error.strerror}). The step was not taken: "
        "no step may happen that the ledger does not hold. Make room or correct "
        "privacy.ledger_dir, then resume."
    )
