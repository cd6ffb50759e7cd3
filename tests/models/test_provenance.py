"""Provenance survives a file, and weights that declare the private data are refused."""

from __future__ import annotations

import json

import pytest

from dpmed.errors import UserError
from dpmed.models.provenance import (
    Provenance,
    SeenDataSet,
    from_metadata,
    refuse_if_seen,
    to_metadata,
)

PUBLIC = SeenDataSet(name="kermany", data_id="abc", patient_hashes=("p1", "p2"))
HISTORY = Provenance(
    source="file", architecture="convnext_atto", url="w.safetensors", data_sets=(PUBLIC,)
)


def test_metadata_round_trip():
    history = HISTORY.after_training_on(SeenDataSet(name="more"), labels=["a", "b"])
    assert history.labels == ("a", "b")
    assert [seen.name for seen in history.data_sets] == ["kermany", "more"]
    assert from_metadata(to_metadata(history)) == history
    assert from_metadata({"format": "pt"}) is None


def test_a_declaration_that_cannot_be_read_is_an_error():
    for text in ("{", "[]", json.dumps({"source": "file"}), json.dumps({"data_sets": 3})):
        with pytest.raises(UserError, match="which data the weights have seen"):
            from_metadata({"dpmed_provenance": text})


@pytest.mark.parametrize("data_id", ["abc", "kermany"])
def test_private_data_set_is_refused_by_hash_and_by_name(data_id):
    with pytest.raises(UserError, match=r"w.safetensors have seen the private data set 'kermany'"):
        refuse_if_seen(HISTORY, data_id=data_id)


def test_shared_patients_are_refused_and_counted():
    with pytest.raises(UserError, match="shares 1 patients") as caught:
        refuse_if_seen(HISTORY, data_id="other", patient_hashes=["p2", "p3"])
    assert "p2" not in str(caught.value), "the message is kept in run.json"


def test_unrelated_and_empty_histories_pass():
    refuse_if_seen(HISTORY, data_id="other", patient_hashes=["p3"])
    refuse_if_seen(HISTORY, data_id="")
    scratch = Provenance(source="scratch", architecture="convnext_atto")
    refuse_if_seen(scratch, data_id="abc", patient_hashes=["p1"])


def test_summary_counts_the_patient_hashes_instead_of_showing_them():
    summary = HISTORY.summary()
    assert summary["data_sets"][0]["num_patient_hashes"] == 2
    assert "p1" not in json.dumps(summary)


def test_description_names_source_data_and_licence():
    assert "random weights" in Provenance(source="scratch", architecture="convnext_atto").describe()
    described = HISTORY.describe()
    assert "w.safetensors" in described
    assert "kermany" in described
    assert "not declared" in described
