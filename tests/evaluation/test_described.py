"""Described items against withheld ones, which say the same."""

from dataclasses import replace

import numpy as np
import pytest

from mmctr.content.fusion import item_embeddings
from mmctr.evaluation.described import Description, Prospects, with_items
from mmctr.evaluation.new_items import Trial, withheld
from mmctr.evaluation.similarity import nearest
from mmctr.model.din import DIN, DINConfig
from mmctr.training.prediction import predict


@pytest.fixture(scope="module")
def prospects(tiny, tiny_run):
    return Prospects(Trial.of(tiny, [tiny_run]))


def scored(model, rows, item):
    """What a model says of one item, to the histories of all rows."""
    target = np.full(len(rows), item, np.int32)
    return predict(model, replace(rows, target=target, levels=None))


def test_a_description_of_an_item_scores_as_the_item_without_identity(prospects, tiny):
    assert len(np.unique(prospects.rows.user)) == len(prospects.rows)
    for item in (4, 50, 299):
        described = Description.of_item(tiny.catalog, item)
        scores = prospects.scores(described)
        expected = scored(withheld(prospects.model, np.array([item])), prospects.rows, item)
        # Histories that hold the item would lose it there, and keep it here.
        other = [item not in prospects.rows.history(row) for row in range(len(prospects.rows))]
        np.testing.assert_allclose(scores["whole"][other], expected[other], atol=1e-4)
        assert prospects.parts(described) == ["text", "image", "tags"]
        np.testing.assert_allclose(
            prospects.scores(described.without("tags"))["whole"], scores["tags"], atol=1e-6
        )
        near = prospects.neighbours(described)
        assert near["item"].tolist() == nearest(item_embeddings(tiny, "v4"), item, 6).tolist()


def test_what_is_missing_is_that_of_the_mean_item(prospects, tiny):
    item = Description.of_item(tiny.catalog, 7)
    mean = replace(item, text=tiny.catalog.text_features[1:].mean(axis=0))
    without = prospects.vector(item.without("text"))
    np.testing.assert_allclose(without, prospects.vector(mean), atol=1e-6)
    assert not np.allclose(without, prospects.vector(item))
    assert prospects.parts(Description()) == []


def test_tags_are_told_by_the_users_who_clicked_them(prospects, tiny):
    scores = np.random.default_rng(0).random(len(prospects.rows))
    table = prospects.by_tag(scores)
    assert table["score"].is_monotonic_decreasing and (table["users"] >= 10).all()
    for line in table[:5].itertuples():
        users = [
            row
            for row in range(len(prospects.rows))
            if (tiny.catalog.tags[prospects.rows.history(row)] == line.tag).any()
        ]
        assert (line.users, line.score) == (len(users), pytest.approx(scores[users].mean()))


def test_usual_scores_are_those_of_new_items(prospects):
    assert len(prospects.usual) == 40
    new = np.random.default_rng(0).permutation(np.flatnonzero(prospects.trial.new))[:40]
    mean = scored(prospects.model, prospects.rows, new[3]).mean()
    assert prospects.usual[3] == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_items_are_added_to_a_model_that_stays_as_it_was(tiny, dropout):
    """Without content, as ids are: tags alone speak, and the model keeps its own items."""
    config = DINConfig.of(embedding_dim=4, heads=1, hidden=(8,), identity_dropout=dropout)
    model = DIN.for_dataset(config, tiny, None).eval()
    grown = with_items(model, tiny.catalog.tags[[5, 9]], None)
    count = tiny.catalog.n_items
    assert (model.n_items, grown.n_items) == (count, count + 2)
    np.testing.assert_array_equal(predict(grown, tiny.valid), predict(model, tiny.valid))
    rows = tiny.valid.select(np.arange(30))
    for item, added in ((5, count + 1), (9, count + 2)):
        keep = [item not in rows.history(row) for row in range(len(rows))]
        expected = scored(withheld(model, np.array([item])), rows, item)
        np.testing.assert_allclose(scored(grown, rows, added)[keep], expected[keep], atol=1e-6)
