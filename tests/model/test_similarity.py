"""Similarity to the history against a loop over rows and clicks, at double precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmctr.content.fusion import item_embeddings
from mmctr.model.attention import Histories
from mmctr.model.din import DIN
from mmctr.model.similarity import BINS, HistorySimilarity
from mmctr.training.config import configs
from mmctr.training.prediction import Scorer, predict


def naive(content, targets, histories, heads):
    """What the linear layer reads, row by row."""
    parts = [len(one) for one in np.array_split(np.arange(content.shape[1]), heads)]
    ends = np.cumsum(parts)
    rows = []
    for target, history in zip(targets, histories, strict=True):
        counts, by_head = np.zeros(BINS), []
        for item in history:
            a, b = content[target], content[item]
            if a.any() and b.any():
                cosine = a @ b / np.sqrt((a @ a) * (b @ b))
                counts[min(BINS - 1, int(np.floor((cosine + 1) * BINS / 2)))] += 1
        for head in range(heads):
            own = slice(ends[head] - parts[head], ends[head])
            found = []
            for item in history:
                a, b = content[target, own], content[item, own]
                length = np.sqrt((a @ a) * (b @ b))
                found.append(a @ b / length if length else 0.0)
            by_head.append((max(found, default=0.0), np.mean(found) if found else 0.0))
        largest, mean = zip(*by_head, strict=True)
        rows.append([*np.log1p(counts), *largest, *mean])
    return np.array(rows)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("width", "heads"), [(8, 4), (7, 3), (5, 1)])
def test_it_counts_as_a_loop_does(seed, width, heads):
    rng = np.random.default_rng(seed)
    content = rng.normal(size=(12, width)).astype(np.float32)
    content[0] = content[5] = 0  # padding, and an item without content
    content[6, : width // heads] = 0
    targets = rng.integers(1, 12, 9)
    histories = [rng.integers(1, 12, rng.integers(0, 7)) for _ in targets]
    histories[0] = []
    layer = HistorySimilarity(width, heads, dim=3)
    table = layer.as_items(torch.from_numpy(content))
    flat = torch.tensor([item for history in histories for item in history])
    ragged = Histories.of(flat, torch.tensor([len(history) for history in histories]))
    found = layer(table[targets], table, ragged)
    expected = naive(content.astype(np.float64), targets, histories, heads)
    weight = layer.output.weight.detach().numpy().astype(np.float64)
    np.testing.assert_allclose(found.detach(), expected @ weight.T, atol=1e-4)
    # Candidates that share one history, whichever way it is computed.
    clicks = torch.tensor(histories[1] if len(histories[1]) else [3])
    alone = Histories.of(clicks, torch.tensor([len(clicks)]))
    shared = layer(table[targets], table, alone)
    apart = layer(table[targets], table, alone.for_rows(len(targets)))
    torch.testing.assert_close(shared, apart)


@pytest.fixture(scope="module")
def model(tiny):
    config, _ = configs(embedding_dim=8, heads=2, hidden=(16,), similarity=True)
    torch.manual_seed(0)
    return DIN.for_dataset(config, tiny, item_embeddings(tiny, "v4", 16)).eval()


def test_it_is_a_field_of_the_model_and_the_scorer_knows_it(model, tiny):
    assert "similarity to the history" in model.fields
    row = int(np.argmax(tiny.valid.history_length))
    candidates = np.arange(1, 40)
    rows = tiny.valid.select(np.full(len(candidates), row))
    rows = replace(rows, target=candidates.astype(np.int32), levels=None)
    expected = predict(model, rows)
    found = Scorer(model)(tiny.valid.history(row), candidates)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with torch.no_grad():
        model.similarity.output.weight.neg_()
    changed = predict(model, rows)
    with torch.no_grad():
        model.similarity.output.weight.neg_()
    assert np.abs(changed - expected).max() > 1e-4


def test_without_an_item_embedding_there_is_nothing_to_compare(tiny):
    config, _ = configs(embedding_dim=8, hidden=(16,), similarity=True)
    assert "similarity to the history" not in DIN.for_dataset(config, tiny, None).fields
