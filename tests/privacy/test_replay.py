"""Resuming: free when nothing changed, charged or refused when anything did."""

from __future__ import annotations

import pytest

from dpmed.privacy.replay import FINGERPRINT_FIELDS, fingerprint_hash, replay_check

RECORDED = {
    "key_id": "k1",
    "plan_hash": "p1",
    "data_hash": "d1",
    "code_version": "1.0+abc",
    "num_threads": "2",
    "physical_batch_size": "64",
}


def test_unchanged_conditions_replay_for_free() -> None:
    decision = replay_check(
        recorded=RECORDED, present=dict(RECORDED), completed_steps=10, reserved_steps=range(13)
    )
    assert decision.is_free
    assert decision.replayed_steps == (10, 11, 12)
    assert decision.charged_steps == ()
    assert "3 steps, 10 to 12, are repeated bit for bit, free of charge" in decision.message()


@pytest.mark.parametrize("name", FINGERPRINT_FIELDS)
def test_any_change_charges_the_replayed_steps_and_names_itself(name: str) -> None:
    decision = replay_check(
        recorded=RECORDED,
        present={**RECORDED, name: "changed"},
        completed_steps=10,
        reserved_steps=range(13),
    )
    assert not decision.is_free
    assert decision.charged_steps == (10, 11, 12)
    assert f"{name} (was {RECORDED[name]}, now changed)" in decision.message()
    assert "3 steps, 10 to 12, are charged a second time" in decision.message()


@pytest.mark.parametrize("name", FINGERPRINT_FIELDS)
@pytest.mark.parametrize("side", ["recorded", "present"])
def test_what_is_not_recorded_counts_as_changed(name: str, side: str) -> None:
    sides = {"recorded": dict(RECORDED), "present": dict(RECORDED)}
    del sides[side][name]
    decision = replay_check(**sides, completed_steps=0, reserved_steps=[0])
    assert [text.split(" ")[0] for text in decision.differences] == [name]


def test_further_fields_are_compared_too() -> None:
    decision = replay_check(
        recorded=RECORDED,
        present={**RECORDED, "device": "cuda"},
        completed_steps=0,
        reserved_steps=[0],
    )
    assert decision.differences == ("device (was unknown, now cuda)",)


def test_a_clean_stop_under_changed_conditions_charges_nothing() -> None:
    decision = replay_check(
        recorded=RECORDED,
        present={**RECORDED, "num_threads": "4"},
        completed_steps=13,
        reserved_steps=range(13),
    )
    assert decision.charged_steps == ()
    assert not decision.is_free
    assert "no step is charged twice" in decision.message()


def test_the_hash_follows_every_field() -> None:
    hashes = {fingerprint_hash(RECORDED)}
    hashes |= {fingerprint_hash({**RECORDED, name: "x"}) for name in FINGERPRINT_FIELDS}
    assert len(hashes) == 1 + len(FINGERPRINT_FIELDS)
    assert fingerprint_hash(dict(reversed(RECORDED.items()))) == fingerprint_hash(RECORDED)
    with pytest.raises(AssertionError, match="num_threads"):
        fingerprint_hash({k: v for k, v in RECORDED.items() if k != "num_threads"})
