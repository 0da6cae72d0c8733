"""Contrastive alignment against naive loops, and on clicks whose right answer is planted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmctr.content import alignment
from mmctr.content.alignment import ContrastiveAlignment, info_nce, positive_pairs
from mmctr.content.fusion import item_embeddings
from mmctr.data.impressions import Impressions

KINDS, PER_KIND, WIDTH = 8, 15, 24


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Small data need few: seconds, not minutes."""
    monkeypatch.setattr(alignment, "MOST_STEPS", 300)


def rows_of(histories, targets):
    """Clicked rows of these histories and targets."""
    lengths = np.array([len(history) for history in histories])
    end, row = np.cumsum(lengths), np.arange(len(targets))
    flat = np.concatenate([np.zeros(0), *histories]).astype(np.int32)
    label = np.ones(len(row), np.float32)
    return Impressions(row, np.array(targets, np.int32), label, end - lengths, end, flat)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(st.integers(0, 200), st.integers(1, 9), st.integers(1, 4), st.integers(1, 60))
def test_pairs_are_the_nearest_of_the_latest_clicks(seed, recent, nearest, block):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(15, 4))).astype(np.float32)
    histories = [rng.integers(1, 16, rng.integers(0, 12)) for _ in range(8)]
    targets = rng.integers(1, 16, 8)
    expected = []
    for history, target in zip(histories, targets, strict=True):
        others = [item for item in history[-recent:] if item != target]
        others.sort(key=lambda item: -float(vectors[item - 1] @ vectors[target - 1]))
        expected += [(target - 1, item - 1) for item in others[:nearest]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "BLOCK", block)
        found = positive_pairs(rows_of(histories, targets), vectors, recent, nearest)
    assert found.dtype == np.int32
    assert sorted(map(tuple, found.tolist())) == sorted(expected)


def test_of_very_many_clicks_a_part_is_learned_from(monkeypatch):
    monkeypatch.setattr(alignment, "MOST_CLICKS", 50)
    clicks = rows_of([[1, 2]] * 200, [3] * 200)
    assert len(positive_pairs(clicks, unit(np.eye(3, dtype=np.float32)))) == 2 * 50


def naive_info_nce(left, right, items, log_share):
    """The loss of one pair after another, in NumPy at double precision."""
    losses = []
    for i in range(len(left)):
        scores = {}
        for j in range(len(left)):
            if j != i and items[j, 1] in (items[i, 0], items[i, 1]):
                continue
            scores[j] = float(left[i] @ right[j]) / alignment.TEMPERATURE - float(log_share[j])
        losses.append(np.log(np.sum(np.exp(list(scores.values())))) - scores[i])
    return float(np.mean(losses))


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_and_its_gradient_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    left, right = (unit(rng.normal(size=(9, 3))) for _ in range(2))
    items = rng.integers(0, 6, (9, 2))  # few: the same item stands in several pairs
    log_share = np.log(rng.random(9))
    tensors = [torch.tensor(one, requires_grad=True) for one in (left, right)]
    loss = info_nce(*tensors, torch.tensor(items), torch.tensor(log_share))
    assert loss.item() == pytest.approx(naive_info_nce(left, right, items, log_share))
    loss.backward()
    for place, whole in enumerate((left, right)):
        for at in np.ndindex(whole.shape):
            moved = []
            for step in (1e-6, -1e-6):
                both = [left.copy(), right.copy()]
                both[place][at] += step
                moved.append(naive_info_nce(*both, items, log_share))
            expected = (moved[0] - moved[1]) / 2e-6
            assert tensors[place].grad[at].item() == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def planted():
    """Items of kinds that show in weak directions, and users who stay with one kind.

    Strong directions, alike for nothing that is clicked, hide the kinds from principal components.
    Two kinds in three are clicked by the same users in pairs, although they look different.
    """
    rng = np.random.default_rng(0)
    kind = np.arange(KINDS * PER_KIND) % KINDS
    faint = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    features = 0.5 * np.eye(KINDS)[kind] @ faint[:KINDS]
    features = features + rng.normal(size=(len(kind), 8)) @ faint[KINDS : KINDS + 8]
    features = features + rng.normal(0, 0.02, features.shape)
    taste = kind // 2  # what one user clicks looks different
    return features.astype(np.float32), taste, rng


def clicks_of(taste, items, rng, count=1000):
    """Users click items of one taste, of those that are given."""
    own = [items[taste[items - 1] == k] for k in range(taste.max() + 1)]
    chosen = rng.integers(len(own), size=count)
    drawn = [rng.choice(own[k], 6) for k in chosen]
    return rows_of([one[:5] for one in drawn], [one[5] for one in drawn])


def same_taste(vectors, taste, asked):
    """How often the nearest other item of each that is asked shares its taste."""
    cosine = unit(vectors) @ unit(vectors).T
    np.fill_diagonal(cosine, -np.inf)
    return float((taste[cosine.argmax(axis=1)] == taste)[asked].mean())


def test_planted_similarity_is_found_for_items_that_nobody_has_clicked(planted):
    features, taste, rng = planted
    new = rng.permutation(len(taste))[: len(taste) // 4]
    clicked = np.setdiff1d(np.arange(len(taste)), new) + 1
    columns = [[0, WIDTH]]
    before = ContrastiveAlignment(columns, 16).fit(features).transform(features)
    after = ContrastiveAlignment(columns, 16).fit(features, clicks_of(taste, clicked, rng))
    found = same_taste(after.transform(features), taste, new)
    assert same_taste(before, taste, new) < 0.6
    assert found > 0.9


def test_clicks_by_chance_teach_nothing(planted):
    """Held-out pairs tell: the projections stay where they were, or nearly so."""
    features, taste, rng = planted
    chance = clicks_of(np.zeros_like(taste), np.arange(1, len(taste) + 1), rng, count=500)
    columns = [[0, WIDTH]]
    start = ContrastiveAlignment(columns, 16).fit(features)
    learned = ContrastiveAlignment(columns, 16).fit(features, chance)
    alike = np.einsum("nd,nd->n", start.transform(features), learned.transform(features)) / 16
    assert alike.mean() > 0.9


def test_an_item_without_text_or_image_has_zeros_there_and_the_rest_as_it_was(planted):
    features, taste, rng = planted
    columns = [[0, 14], [14, WIDTH]]
    clicks = clicks_of(taste, np.arange(1, len(taste) + 1), rng)
    one = ContrastiveAlignment(columns, 16).fit(features, clicks)
    lacking = features[:3].copy()
    lacking[0, :14], lacking[1, 14:], lacking[2] = 0, 0, 0
    whole, found = one.transform(features[:3]), one.transform(lacking)
    assert np.array_equal(found[0], np.r_[np.zeros(8), whole[0, 8:]].astype(np.float32))
    assert np.array_equal(found[1], np.r_[whole[1, :8], np.zeros(8)].astype(np.float32))
    assert not found[2].any()
    for part in (whole[:, :8], whole[:, 8:]):  # text and image count alike
        np.testing.assert_allclose(np.mean(np.square(part), axis=1), 1, rtol=1e-5)


def test_nobodys_random_numbers_are_drawn_and_a_seed_gives_one_result(planted):
    features, taste, rng = planted
    clicks = clicks_of(taste, np.arange(1, len(taste) + 1), rng, count=300)
    columns, state = [[0, 14], [14, WIDTH]], torch.get_rng_state()
    found = [
        ContrastiveAlignment(columns, 16, seed=seed).fit(features, clicks).transform(features)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_valid_and_test_clicks_change_nothing(tiny):
    """Only train is learned from."""
    rng = np.random.default_rng(0)
    others = {
        name: replace(rows, target=rng.permutation(rows.target), label=rng.permutation(rows.label))
        for name, rows in tiny.splits.items()
        if name != "train"
    }
    moved = replace(tiny, splits=tiny.splits | others)
    found = item_embeddings(tiny, "v5", 32)
    assert np.array_equal(found, item_embeddings(moved, "v5", 32))
    turned = replace(tiny.train, label=1 - tiny.train.label)
    other = replace(tiny, splits=tiny.splits | {"train": turned})
    assert not np.array_equal(found, item_embeddings(other, "v5", 32))
