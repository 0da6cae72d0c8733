"""Negatives are items that their user never clicked, and as likely as they should be."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmctr.data import schema
from mmctr.data.dataset import Dataset
from mmctr.data.importing import negatives
from mmctr.data.importing.negatives import FreshNegatives, NegativeSampler
from mmctr.errors import DataError
from mmctr.model.din import DIN
from mmctr.training import trainer
from mmctr.training.trainer import configs, fit
from tests.data.importing.test_steps import imported

ITEMS = 6
clicks = st.lists(st.tuples(st.integers(0, 4), st.integers(1, ITEMS)), min_size=1, max_size=40)


def sampler(log, sampling="uniform", train_clicks=None):
    """Of rows (user number, item)."""
    user, item = np.array(log).T
    if train_clicks is None:
        train_clicks = np.bincount(item, minlength=ITEMS + 1)
    return NegativeSampler.of(sampling, train_clicks, user, item)


@given(clicks, st.sampled_from(["uniform", "popularity"]), st.integers(0, 5), st.integers(1, 9))
def test_nobody_is_shown_what_they_clicked(log, sampling, seed, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(negatives, "BLOCK", block)
        asked = np.repeat(np.arange(5), 4)
        drawn = sampler(log, sampling).draw(asked, np.random.default_rng(seed))
    known = {item for _, item in log} if sampling == "popularity" else set(range(1, ITEMS + 1))
    for user, item in zip(asked, drawn, strict=True):
        left = known - {i for u, i in log if u == user}
        assert item in left if left else item == 0


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [("uniform", {2: 1 / 3, 5: 1 / 3, 6: 1 / 3}), ("popularity", {2: 0.1, 5: 0.3, 6: 0.6})],
)
def test_chances_are_those_of_the_weights(sampling, expected):
    log = [(0, 1), (0, 3), (0, 4), (1, 2)]
    found = sampler(log, sampling, np.array([9, 50, 1, 50, 50, 3, 6]))
    drawn = found.draw(np.zeros(30_000, dtype=np.int64), np.random.default_rng(0))
    for item in range(1, ITEMS + 1):
        chance = expected.get(item, 0)
        # Four standard deviations of a share.
        assert abs((drawn == item).mean() - chance) <= 4 * (chance * (1 - chance) / 30_000) ** 0.5


def test_the_last_item_left_is_found():
    log = [(0, item) for item in range(1, 2000)] + [(1, 3)]
    weight = np.ones(2001)
    user, item = np.array(log).T
    found = NegativeSampler.of("popularity", weight, user, item)
    assert found.draw(np.array([0, 0]), np.random.default_rng(0)).tolist() == [2000, 2000]


def log_of(users=30):
    """Each user clicks two of ten items, one soon after the other."""
    return [
        (f"u{user}", (user + 3 * step) % 10, user + step)
        for user in range(users)
        for step in (0, 1)
    ]


@pytest.mark.parametrize(("drawn", "sampling"), [(0, None), (1, "uniform"), (1, "popularity")])
def test_an_import_says_how_it_drew(tmp_path, drawn, sampling):
    options = {"sampling": sampling} if sampling else {}
    out, _ = imported(tmp_path, log_of(), split="date", negatives=drawn, **options)
    assert Dataset.load(out).negative_sampling == sampling


def test_negatives_that_were_shown_stay(tiny):
    assert tiny.negative_sampling is None
    assert all((targets == tiny.train.target).all() for targets in shown(tiny))


def test_an_unknown_way_of_drawing_is_one_sentence(tmp_path):
    out, _ = imported(tmp_path, log_of(), split="date")
    path = schema.find_file(out, "train.parquet")
    pq.write_table(pq.read_table(path).replace_schema_metadata({schema.NEGATIVES: b"magic"}), path)
    with pytest.raises(DataError, match="'magic', expected one of uniform, popularity"):
        _ = Dataset.load(out).negative_sampling


def shown(dataset, **parameters):
    """The targets of all train rows, in their order, in each of three epochs of training."""
    model_config, config = configs(
        **{"epochs": 3, "embedding_dim": 4, "hidden": (4,), "batch_size": 32, "patience": 99},
        **parameters,
    )
    model, seen = DIN.for_catalog(model_config, dataset.catalog, None), []

    class Batches(trainer.Batches):
        def shuffled(self, *arguments):
            seen.append(self.target.numpy().copy())
            return super().shuffled(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "Batches", Batches)
        torch.manual_seed(0)
        fit(model, dataset, config)
    return seen


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """An imported log."""
    out, _ = imported(tmp_path_factory.mktemp("log"), log_of(60), split="date", negatives=3)
    return Dataset.load(out)


def test_training_draws_anew_in_every_later_epoch(drawn):
    first, second, third = shown(drawn)
    rows = drawn.train
    assert (first == rows.target).all()
    clicked = rows.label == 1
    known = set(zip(rows.user[clicked], rows.target[clicked], strict=True))
    for targets in (second, third):
        assert (targets[clicked] == rows.target[clicked]).all()
        assert not known & set(zip(rows.user[~clicked], targets[~clicked], strict=True))
        assert (targets[~clicked] != rows.target[~clicked]).mean() > 0.5
    assert (second != third).any()
    again = shown(drawn)
    assert all((one == two).all() for one, two in zip(again, (first, second, third), strict=True))
    other = shown(drawn, seed=2)
    assert (other[0] == first).all() and (other[1] != second).any()


def test_fresh_negatives_can_be_switched_off(drawn):
    off = shown(drawn, fresh_negatives=False)
    assert all((targets == drawn.train.target).all() for targets in off)
    assert all(not configs(preset)[1].fresh_negatives for preset in ("paper", "din"))


def test_a_row_keeps_its_negative_when_nothing_else_is_left(drawn):
    rows = drawn.train
    number = np.flatnonzero(rows.user == rows.user[0])
    # Someone who clicked every item.
    every = np.arange(1, drawn.catalog.n_items + 1, dtype=np.int32)
    row = np.r_[np.repeat(number[:1], len(every)), number[rows.label[number] == 0][:1]]
    changed = dataclasses.replace(
        rows.select(row),
        target=np.r_[every, rows.target[row[-1]]],
        label=np.r_[np.ones(len(every)), 0].astype(np.float32),
    )
    fresh = FreshNegatives(dataclasses.replace(drawn, splits={"train": changed}))
    assert (fresh.targets(np.random.default_rng(0)) == changed.target).all()
