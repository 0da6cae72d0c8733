"""Negatives are drawn anew for later epochs."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mmctr.data import schema
from mmctr.data.dataset import Dataset
from mmctr.data.part import part_of_train
from mmctr.data.popularity import popularity_levels
from mmctr.errors import DataError
from mmctr.model.din import DIN
from mmctr.training import trainer
from mmctr.training.config import configs
from mmctr.training.negatives import FreshNegatives
from mmctr.training.trainer import fit
from tests.data.importing.logs import imported
from tests.data.importing.test_negatives import log_of


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


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_new_items_are_not_drawn_and_levels_are_those_of_a_rows_time(tmp_path, sampling):
    out, _ = imported(
        tmp_path, log_of(60), split="new-items", new_share=0.3, negatives=2, sampling=sampling
    )
    dataset = Dataset.load(out)
    rows, held_out = dataset.train, dataset.catalog.held_out
    assert (held_out > 0).sum() == 6
    fresh = FreshNegatives(dataset)
    clicks = [
        (i, t) for i, t, label in zip(rows.target, rows.time, rows.label, strict=True) if label
    ]
    for seed in range(3):
        target = fresh.targets(np.random.default_rng(seed))
        assert not held_out[target].any()
        levels = fresh.levels(target)
        for row in range(0, len(rows), 7):
            before = [item for item, time in clicks if time < rows.time[row]]
            own = np.array([before.count(target[row])])
            expected = popularity_levels(own, len(before), dataset.catalog.n_items)
            assert levels[row].tolist() == expected[0].tolist()


def test_a_part_of_train_tells_levels_as_all_of_it_does(drawn):
    """Levels of rows count all of train; those of drawn negatives would tell labels otherwise."""
    part = part_of_train(drawn, len(drawn.train) // 2)
    fresh, rows = FreshNegatives(part), part.train
    assert (fresh.levels(rows.target) == rows.levels).all()
    assert set(fresh.targets(np.random.default_rng(0))[rows.label == 1]) <= set(rows.target)
