"""Semantic ids beside the item embedding: against a loop, saved, served, and for new items."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmctr.content import alignment
from mmctr.content.fusion import item_embeddings
from mmctr.content.quantization import ResidualQuantizer
from mmctr.evaluation.described import with_items
from mmctr.model.din import DIN
from mmctr.training.config import configs
from mmctr.training.prediction import Scorer, predict


@pytest.fixture(scope="module")
def embedding(tiny):
    return item_embeddings(tiny, "v4", 16)


@pytest.fixture(scope="module")
def model(tiny, embedding):
    config, _ = configs(embedding_dim=8, heads=2, hidden=(16,), semantic_ids=True)
    torch.manual_seed(0)
    return DIN.for_dataset(config, tiny, embedding).eval()


def field(model, items):
    """The columns of the semantic ids, float32 [m, dim]."""
    names, dim = list(model.embedding.widths), model.config.embedding_dim
    start = names.index("semantic ids") * dim
    return model.embedding(torch.as_tensor(items))[:, start : start + dim].detach().numpy()


def test_the_field_is_the_sum_of_a_vector_for_each_prefix_that_items_share(model, embedding):
    ids = ResidualQuantizer().fit_transform(embedding[1:])
    by_prefix = model.embedding.beside.table.table.weight.detach().numpy()
    for item in (1, 7, len(embedding) - 1):
        expected, start = np.zeros(8, np.float32), 0
        for level, own in enumerate(ids[item - 1]):
            expected += by_prefix[start + own]
            start += ids[:, level].max() + 1
        np.testing.assert_allclose(field(model, [item])[0], expected, atol=1e-6)
    assert not field(model, [0]).any()


def test_they_learn_in_targets_and_in_histories(model, tiny):
    rows = tiny.valid.select(np.flatnonzero(tiny.valid.history_length > 0)[:1])
    table = model.embedding.beside.table.table.weight
    before = predict(model, rows)
    clicked = int(rows.history(0)[0])
    own = model.embedding.beside.codes[clicked, 0]
    with torch.no_grad():
        table[own] += 1
    after = predict(model, rows)
    with torch.no_grad():
        table[own] -= 1
    assert model.embedding.beside.codes[int(rows.target[0]), 0] != own
    assert abs(after - before).max() > 1e-5


def test_the_scorer_knows_them(model, tiny):
    row = int(np.argmax(tiny.valid.history_length))
    candidates = np.arange(1, 40)
    rows = tiny.valid.select(np.full(len(candidates), row))
    rows = replace(rows, target=candidates.astype(np.int32), levels=None)
    found = Scorer(model)(tiny.valid.history(row), candidates)
    np.testing.assert_allclose(found, predict(model, rows), atol=1e-5)


def test_a_saved_model_finds_the_codes_of_further_items(model, tiny, embedding, tmp_path):
    model.save_pretrained(tmp_path / "model")
    again = DIN.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(predict(again, tiny.valid), predict(model, tiny.valid))
    further = with_items(again, tiny.catalog.tags[[5, 9]], embedding[[5, 9]])
    count = len(embedding)
    np.testing.assert_array_equal(field(further, [count, count + 1]), field(model, [5, 9]))


def test_what_is_fixed_is_no_weight(model):
    learned = [name for name in model.learned_state() if "beside" in name]
    assert learned == ["embedding.beside.table.table.weight"]


@pytest.mark.parametrize("strategy", ["ids", "v6"])
def test_without_a_dense_vector_there_is_nothing_beside_it(tiny, strategy, monkeypatch):
    monkeypatch.setattr(alignment, "BATCH", 128)  # small data need no large ones
    config, _ = configs(embedding_dim=8, hidden=(16,), semantic_ids=True)
    made = item_embeddings(tiny, strategy, 16)
    assert "semantic ids" not in DIN.for_dataset(config, tiny, made).fields
