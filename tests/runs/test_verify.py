"""A run verifies against its own data, and every kind of change to it is told."""

import hashlib
import json
import shutil
import struct
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from mmctr.content.fusion import embedding_hash
from mmctr.data.dataset import Dataset
from mmctr.errors import RunError
from mmctr.runs.run import Run
from mmctr.runs.verify import rerun, verify
from tests.runs.conftest import with_other_ids


@pytest.fixture
def copy(tiny_run, tmp_path):
    """A copy of a finished run, to be spoilt."""
    return shutil.copytree(tiny_run.folder, tmp_path / "run")


def test_a_run_verifies_on_its_own_data(tiny_run, tiny):
    assert verify(tiny_run, tiny) == ([], [])


def test_an_embellished_metric_is_told(copy, tiny):
    summary = json.loads((copy / "summary.json").read_text())
    summary["metrics"]["auc"] += 0.01
    (copy / "summary.json").write_text(json.dumps(summary))
    (sentence,) = verify(Run.load(copy), tiny).differing
    assert sentence.startswith("summary.json says auc 0.")


def test_other_predictions_are_told(copy, tiny):
    path = copy / "predictions.parquet"
    table = pd.read_parquet(path)
    table["probability"] = table["label"] * 0.8 + 0.1
    table.to_parquet(path)
    sentences = verify(Run.load(copy), tiny).differing
    assert any("says auc" in sentence for sentence in sentences)
    assert sentences[-1].startswith("The weights give other probabilities")


def test_predictions_of_other_rows_are_told(copy, tiny):
    path = copy / "predictions.parquet"
    pd.read_parquet(path).iloc[::-1].to_parquet(path)
    (sentence,) = verify(Run.load(copy), tiny).differing
    assert "is not that of the valid split" in sentence


def test_other_own_ids_are_told(named_run, named, tmp_path):
    copy = shutil.copytree(named_run.folder, tmp_path / "run")
    path = copy / "predictions.parquet"
    sound = pd.read_parquet(path)
    for name in ("user_id", "item_id"):
        sound.assign(**{name: sound[name].to_numpy()[::-1]}).to_parquet(path)
        (sentence,) = verify(Run.load(copy), named).differing
        assert sentence == f"Column {name} of predictions.parquet is not that of the valid split."
    sound.drop(columns=["user_id", "item_id"]).to_parquet(path)  # as older runs have it
    assert verify(Run.load(copy), named).differing == []


def test_other_weights_are_told(copy, tiny):
    weights = load_file(copy / "model.safetensors")
    weights["output.bias"] = weights["output.bias"] + 1
    save_file(weights, copy / "model.safetensors")
    (sentence,) = verify(Run.load(copy), tiny).differing
    assert sentence.startswith("The weights give other probabilities")


def test_another_item_embedding_is_told(copy, tiny):
    path = copy / "summary.json"
    sound = path.read_text()
    path.write_text(json.dumps(json.loads(sound) | {"item_embedding_sha256": "0" * 64}))
    verdict = verify(Run.load(copy), tiny)
    assert verdict.differing == [
        "The weights hold another item embedding than summary.json states."
    ]
    assert "but for rounding" in verdict.remarks[0]
    path.write_text(sound)
    text = np.roll(tiny.catalog.text_features, 1, axis=0)
    other = replace(tiny, catalog=replace(tiny.catalog, text_features=text))
    other.__dict__["fingerprint"] = tiny.fingerprint
    assert verify(Run.load(copy), other).differing == [
        "v4 fits another item embedding to these data."
    ]


def test_low_bits_of_another_processor_are_a_remark(tiny_run, tiny, monkeypatch):
    real = Run.item_embeddings

    def rounded(run, catalog):
        return np.nextafter(real(run, catalog), np.float32(9))

    monkeypatch.setattr(Run, "item_embeddings", rounded)
    verdict = verify(tiny_run, tiny)
    assert verdict.differing == []
    assert "but for rounding" in verdict.remarks[0]


def test_the_hash_is_of_shape_and_values():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = hashlib.sha256(b"(2, 3)" + struct.pack("<6f", *range(6))).hexdigest()
    assert embedding_hash(values) == embedding_hash(np.asfortranarray(values)) == expected
    assert embedding_hash(values.reshape(3, 2)) != expected
    assert embedding_hash(None) is None


def test_parameters_that_were_changed_afterwards_are_told(copy, tiny):
    config = json.loads((copy / "config.json").read_text())
    config["training"]["learning_rate"] = 1.0
    (copy / "config.json").write_text(json.dumps(config))
    (sentence,) = verify(Run.load(copy), tiny).differing
    assert sentence == "summary.json states other parameters than config.json."


def test_other_data_are_told(tiny_run, tiny):
    other = Dataset(tiny.folder, tiny.catalog, tiny.splits)
    other.__dict__["fingerprint"] = "0" * 16
    (sentence,) = verify(tiny_run, other).differing
    assert sentence.startswith("The data's fingerprint is 0000")


def test_training_again_gives_the_very_same_weights(tiny_run, tiny, tmp_path):
    again, words = rerun(tiny_run, tiny, tmp_path)
    assert words == "The weights are identical, bit for bit."
    assert again.folder.parent == tmp_path
    assert again.predictions.equals(tiny_run.predictions)


def test_another_seed_is_not_the_same_run(copy, tiny, tmp_path):
    config = json.loads((copy / "config.json").read_text())
    config["training"]["seed"] += 1
    (copy / "config.json").write_text(json.dumps(config))
    _, words = rerun(Run.load(copy), tiny, tmp_path / "again")
    assert words.startswith("The weights differ by up to")


def test_other_data_are_not_trained_on(tiny_run, tiny, tmp_path):
    other = Dataset(tiny.folder, tiny.catalog, tiny.splits)
    other.__dict__["fingerprint"] = "0" * 16
    with pytest.raises(RunError, match="choose the run's own dataset"):
        rerun(tiny_run, other, tmp_path)


def test_items_with_other_own_ids_are_not_trained_on(named_run, named, tmp_path):
    other = with_other_ids(named)
    assert other.fingerprint == named.fingerprint
    with pytest.raises(RunError, match="was trained on items with other ids than") as caught:
        rerun(named_run, other, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
