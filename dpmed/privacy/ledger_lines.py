"""The lines of a ledger file: one reserved step each, and what a crash may leave of one.

Between the file and `ledger`. A line that cannot be read is counted, never skipped in silence.
"""

from __future__ import annotations

import datetime
import json
import logging
from dataclasses import dataclass, field

from dpmed.errors import UserError
from dpmed.privacy.accounting import Mechanism

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """One noisy step that was about to happen; equal reservations are one step, replayed.

    Args:
        run_id: the run.
        step: its logical step.
        key_id: commitment to the key of its noise.
        fingerprint: hash of all that a bit-for-bit replay needs, see `replay`.
        noise_multiplier: of the step.
        sample_rate: of the step.
        private: false where the noise was seeded or absent: then nothing is promised.
    """

    run_id: str
    step: int
    key_id: str
    fingerprint: str
    noise_multiplier: float
    sample_rate: float
    private: bool


def to_line(reservation: Reservation) -> str:
    """One JSON object, without the line break."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return json.dumps({**vars(reservation), "time": now}, allow_nan=False)


def from_line(line: bytes) -> Reservation | None:
    """The reservation, or None where the line is damaged."""
    try:
        fields = json.loads(line)
        fields.pop("time")
        reservation = Reservation(**fields)
        # The constructor refuses what cannot be composed.
        Mechanism(
            noise_multiplier=reservation.noise_multiplier,
            sample_rate=reservation.sample_rate,
            num_steps=1,
        )
    except (ValueError, TypeError, KeyError, AttributeError, UserError):
        return None
    return reservation


@dataclass
class LedgerContent:
    """What has been read of a ledger file so far.

    Args:
        reservations: each with the line that it was first read from.
        by_key: (key id, step) -> the first reservation of that noise.
        num_damaged_lines: whole lines that could not be read.
        num_bytes: how much of the file has been read.
        cut_off: what follows the last line break: empty unless a write was interrupted.
    """

    reservations: dict[Reservation, str] = field(default_factory=dict)
    by_key: dict[tuple[str, int], Reservation] = field(default_factory=dict)
    num_damaged_lines: int = 0
    num_bytes: int = 0
    cut_off: bytes = b""

    def add(self, content: bytes) -> None:
        """Take in what was appended to the file."""
        self.num_bytes += len(content)
        *lines, self.cut_off = (self.cut_off + content).split(b"\n")
        for line in lines:
            reservation = from_line(line)
            if reservation is None:
                self.num_damaged_lines += 1
                logger.warning("A line of the ledger is damaged; it is charged as a step.")
                continue
            self.reservations.setdefault(reservation, line.decode())
            self.by_key.setdefault((reservation.key_id, reservation.step), reservation)

    def with_cut_off_line_counted(self) -> LedgerContent:
        """The same, with an interrupted last line as a damaged one."""
        return LedgerContent(
            reservations=self.reservations,
            num_damaged_lines=self.num_damaged_lines + bool(self.cut_off),
        )
