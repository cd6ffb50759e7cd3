"""The key of a run and its place in the ledger: a new run, a free replay, or a charged one.

A run that was interrupted repeats the steps after its last checkpoint. Under unchanged conditions
they come out bit for bit and cost nothing. Otherwise a fresh key is needed, the repeated steps are
charged a second time, and the run ends that many steps earlier: the planned epsilon holds in
either case.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dpmed.config import RunConfig
from dpmed.errors import UserError
from dpmed.privacy.accounting import Mechanism
from dpmed.privacy.keys import delete_key, load_key, save_key
from dpmed.privacy.ledger import Ledger
from dpmed.privacy.plan import PrivacyPlan
from dpmed.privacy.randomness import KEY_BYTES, SecretStream
from dpmed.privacy.replay import fingerprint_hash, replay_check
from dpmed.run_record import RunRecord

logger = logging.getLogger(__name__)

CHECKPOINT = Path("checkpoints") / "last.ckpt"
KEY_FILE = Path("private") / "noise.key"


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What training needs to draw, to be charged and to resume.

    Args:
        stream: source of noise and draws; seeded and harmless without privacy.
        fingerprint: the conditions under which this run's steps repeat bit for bit.
        resume_from: the checkpoint to go on from, if there is one.
        num_steps: logical steps to train, the planned ones less those charged twice.
    """

    stream: SecretStream
    fingerprint: dict[str, str]
    resume_from: Path | None
    num_steps: int
    run_dir: Path
    ledger: Ledger
    run_id: str
    plan: PrivacyPlan

    def reserve(self, step: int) -> None:
        """Charges a logical step, durably, before the update that spends it."""
        if self.plan.enabled:
            self.ledger.reserve(
                run_id=self.run_id,
                step=step,
                key_id=self.stream.key_id,
                mechanism=Mechanism(
                    noise_multiplier=self.plan.noise_multiplier,
                    sample_rate=self.plan.sample_rate,
                    num_steps=1,
                ),
                fingerprint=fingerprint_hash(self.fingerprint),
                private=self.plan.private,
            )

    def close(self, record: RunRecord) -> None:
        """After the last step: books what all runs have spent, destroys the key."""
        if self.plan.enabled:
            spent = asdict(self.ledger.spent(delta=self.plan.delta))
            record.update(budget=spent | {"epsilon": _finite(spent["epsilon"])})
            lines = self.ledger.lines_of_run(self.run_id)
            (self.run_dir / "ledger.jsonl").write_text(lines, encoding="utf-8")
            delete_key(self.run_dir / KEY_FILE)


def open_secrets(
    config: RunConfig, plan: PrivacyPlan, *, data_hash: str, run_dir: Path, record: RunRecord
) -> Secrets:
    """Opens the key and the ledger of a run, new or interrupted.

    Raises:
        UserError: the conditions of an interrupted run changed and
            `on_changed_replay=refuse`; says what differs and what going on would cost.
    """
    ledger = Ledger(_ledger_path(config))
    conditions = {
        "plan_hash": plan.plan_hash,
        "data_hash": data_hash,
        "code_version": str(record.content["code_version"]),
        "torch": str(torch.__version__),
        "device": str(record.content["device"]),
        "precision": config.performance.precision,
        "num_threads": str(torch.get_num_threads()),
        "physical_batch_size": str(config.performance.physical_batch_size),
        "channels_last": str(config.performance.channels_last),
        "clipping_engine": config.performance.clipping_engine,
        "compile": str(config.performance.compile),
    }
    checkpoint = run_dir / CHECKPOINT
    charged: list[int] = list(record.content.get("charged_steps", []))
    recorded = record.content.get("fingerprint")
    if recorded is None:
        stream = _new_stream(config, plan)
        _keep(stream, plan, run_dir)
    else:
        stream, newly_charged = _resumed_stream(
            config, plan, ledger, recorded, conditions, checkpoint, run_dir, record
        )
        charged += newly_charged
    fingerprint = {"key_id": stream.key_id, **conditions}
    record.update(fingerprint=fingerprint, charged_steps=charged)
    return Secrets(
        stream=stream,
        fingerprint=fingerprint,
        resume_from=checkpoint if checkpoint.exists() else None,
        num_steps=plan.num_steps - len(charged),
        run_dir=run_dir,
        ledger=ledger,
        run_id=record.run_id,
        plan=plan,
    )


def _resumed_stream(
    config: RunConfig,
    plan: PrivacyPlan,
    ledger: Ledger,
    recorded: dict[str, str],
    conditions: dict[str, str],
    checkpoint: Path,
    run_dir: Path,
    record: RunRecord,
) -> tuple[SecretStream, list[int]]:
    if not plan.enabled:
        return _new_stream(config, plan), []
    key_path = run_dir / KEY_FILE
    kept = load_key(key_path) if key_path.exists() else None
    decision = replay_check(
        recorded=recorded,
        present={"key_id": "lost" if kept is None else kept.key_id, **conditions},
        completed_steps=_completed_steps(checkpoint),
        reserved_steps=ledger.reserved_steps(record.run_id),
    )
    logger.warning(decision.message())
    if decision.is_free:
        assert kept is not None
        return kept, []
    if config.on_changed_replay == "refuse":
        raise UserError(
            f"{decision.message()} Restore the conditions, or go on with "
            "on_changed_replay=charge: the run then ends "
            f"{len(decision.charged_steps)} steps earlier, so that the planned epsilon still holds."
        )
    delete_key(key_path)
    stream = _new_stream(config, plan)
    _keep(stream, plan, run_dir)
    return stream, list(decision.charged_steps)


def _new_stream(config: RunConfig, plan: PrivacyPlan) -> SecretStream:
    if not plan.enabled:
        # Nothing is hidden without DP: the draws repeat with the seed, as a user expects.
        return SecretStream.from_key(config.seed.to_bytes(KEY_BYTES, "big"))
    if config.privacy.injected_key is not None:
        return SecretStream.from_key(bytes.fromhex(config.privacy.injected_key))
    return SecretStream.from_os()


def _keep(stream: SecretStream, plan: PrivacyPlan, run_dir: Path) -> None:
    if plan.enabled:
        save_key(stream, run_dir / KEY_FILE)


def _completed_steps(checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    content: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location="cpu")
    return int(content["dpmed"]["completed_steps"])


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None


def _ledger_path(config: RunConfig) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", config.data.id)
    return Path(config.privacy.ledger_dir).expanduser() / f"{name}.jsonl"
