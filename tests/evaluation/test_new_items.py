"""New, cold and warm items against loops and models that are changed by hand."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mmctr.data.impressions import Impressions
from mmctr.evaluation import new_items
from mmctr.evaluation.new_items import AGAINST_ALL, WITHIN, Trial
from mmctr.model.din import DIN, DINConfig
from mmctr.training.prediction import predict

TINY = {"embedding_dim": 4, "heads": 1, "hidden": (8,)}


def rows_of(target, label, histories, user=None):
    """Impressions of small lists."""
    ends = np.cumsum([len(one) for one in histories])
    return Impressions(
        np.arange(len(target)) if user is None else np.asarray(user),
        np.array(target, np.int32),
        np.array(label, np.float32),
        np.append(0, ends[:-1]),
        ends,
        np.array([item for one in histories for item in one], np.int32),
    )


def test_groups_are_new_cold_and_warm():
    found = new_items.newness(np.array([0, 1, 4, 5, 900]))
    assert found.tolist() == ["new", "cold", "cold", "warm", "warm"]
    assert found.cat.categories.tolist() == ["new", "cold", "warm"]


def test_auc_is_told_within_the_group_and_against_all_negatives():
    rng = np.random.default_rng(0)
    label = (rng.random(400) < 0.4).astype(np.float32)
    rows = rows_of(np.ones(400), label, [[]] * 400, user=np.arange(400) // 4)
    clicks, score = rng.integers(0, 9, 400), rng.random(400)
    group = new_items.newness(clicks)
    table = new_items.auc_by_newness(rows, {"v1": score}, group)
    assert len(table) == 6
    for line in table.itertuples():
        own = (group == line.group).to_numpy()
        kept = own | ((label == 0) if line.against == AGAINST_ALL else False)
        kept &= own | (label == 0)
        assert line.auc == pytest.approx(roc_auc_score(label[kept], score[kept]))
        assert line.low < line.auc < line.high
        assert (line.clicks, line.rows) == (label[own].sum(), kept.sum())
    within = table[table["against"] == WITHIN]["auc"].iloc[0]
    said = f"Clicks of new items, within the group v1 {within:.3f}; against all"
    assert new_items.told(table).startswith(said)


def test_empty_and_small_groups_are_told():
    label, group = np.array([1, 0, 0]), new_items.newness(np.array([0, 0, 5]))
    assert new_items.remarks(label, group) == (
        "The new group is small (1 clicks, 1 negatives): its figures say little. No click of these "
        "rows is on a cold item. No click of these rows is on a warm item."
    )
    plenty = new_items.newness(np.repeat([0, 1, 5], 80))
    assert new_items.remarks(np.tile([0, 1], 120), plenty) == ""
    rows = rows_of([1, 1, 1], [1, 1, 1], [[]] * 3)
    table = new_items.auc_by_newness(rows, {"v1": np.ones(3)}, group)
    assert table.empty and new_items.told(table) == ""


def naive_cosine(features, target, history):
    """The cosine of a target with the mean of a history, one item after another."""
    units = [features[item] / (np.linalg.norm(features[item]) or 1) for item in history]
    if not units:
        return 0.0
    mean = np.mean(units, axis=0)
    lengths = np.linalg.norm(mean) * np.linalg.norm(features[target])
    return float(mean @ features[target] / lengths) if lengths else 0.0


def test_cosines_are_those_of_a_loop(tiny, monkeypatch):
    monkeypatch.setattr(new_items, "BLOCK", 7)
    rng = np.random.default_rng(1)
    text, image = (rng.normal(size=(tiny.catalog.n_items + 1, 5)).astype(np.float32) for _ in "ab")
    text[[0, 3, 4]] = 0  # padding, and items without a title
    catalog = replace(tiny.catalog, text_features=text, image_features=image)
    histories = [[3], [], [1, 2, 1], [4, 3], [5, 6, 7, 3], *([[8, 9]] * 20), [2] * 9]
    rows = rows_of(rng.integers(1, 11, len(histories)), np.zeros(len(histories)), histories)
    found = new_items.cosines(catalog, rows)
    assert list(found) == ["cosine of text", "cosine of image"]
    for features, scores in zip((text, image), found.values(), strict=True):
        assert scores.dtype == np.float32
        naive = [naive_cosine(features, t, h) for t, h in zip(rows.target, histories, strict=True)]
        np.testing.assert_allclose(scores, naive, atol=1e-6)
    without = replace(catalog, text_features=None, image_features=None)
    assert new_items.cosines(without, rows) == {}


@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_withheld_items_are_as_if_their_ids_and_levels_were_blank(tiny, dropout):
    torch.manual_seed(0)
    config = DINConfig.of(identity_dropout=dropout, **TINY)
    model = DIN.for_dataset(config, tiny, None).eval()
    torch.nn.init.normal_(model.embedding.likes_level.weight)
    torch.nn.init.normal_(model.embedding.id.weight[1:].data)
    items, rows = np.array([3, 7, 20]), tiny.valid
    levels = np.full((len(rows), 2), 4, np.int8)
    rows = replace(rows, levels=levels)
    before = predict(model, rows)
    blank = copy.deepcopy(model)
    with torch.no_grad():
        blank.embedding.id.weight[items] = 0
        blank.embedding.item_levels[items] = 0
    levels = np.where(np.isin(rows.target, items)[:, None], 0, levels).astype(np.int8)
    expected = predict(blank, replace(rows, levels=levels))
    found = predict(new_items.withheld(model, items), rows)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found, before)
    np.testing.assert_array_equal(predict(model, rows), before)  # the model itself is as it was


def test_a_tenth_is_drawn_the_same_way_again():
    drawn = new_items.a_tenth(205)
    assert len(drawn) == len(set(drawn)) == 20
    assert drawn.min() >= 1 and drawn.max() <= 205
    np.testing.assert_array_equal(drawn, new_items.a_tenth(205))
    assert len(new_items.a_tenth(3)) == 1


def test_content_is_worth_what_the_best_strategy_gains_in_each_group():
    rng = np.random.default_rng(0)
    label = (rng.random(900) < 0.5).astype(np.float32)
    group = new_items.newness(np.repeat([0, 2, 9], 300))
    noise, new = rng.random((2, 900)), (group == "new").to_numpy()
    scores = {
        "v1": np.where(new, label, noise[0])[None],
        "v2": noise,
        "ids": np.stack([noise[0], noise[0]]),
    }
    rows = rows_of(np.ones(900), label, [[]] * 900)
    table = new_items.worth(scores, rows, group).set_index("group")
    assert table.index.tolist() == ["new", "cold", "warm"]
    gap = 1 - roc_auc_score(label[new], noise[0][new])
    assert table.loc["new", ["strategy", "difference"]].tolist() == ["v1", pytest.approx(gap)]
    assert table.loc["new", "p_holm"] < 0.05 < table.loc["cold", "p_holm"]
    words = new_items.worth_in_words(table.reset_index())
    assert f"{gap:+.3f} on new items (v1, 95% interval " in words
    assert words.count("could be chance") == 2
    trial = SimpleNamespace(words="A stand-in.")
    card = new_items.verdict(table.reset_index(), trial)
    assert (card.headline, card.clear) == (f"Text and image: {gap:+.3f} AUC on new items", True)
    assert card.facts[0][1].startswith(f"{gap:+.3f} to AUC of ids (v1, 95% interval ")
    assert [name for name, _ in card.facts] == [
        "new items",
        "cold items",
        "warm items",
        "what is new",
    ]
    assert not new_items.verdict(table.drop("new").reset_index(), trial).clear
    for few in ({"v1": scores["v1"]}, {"ids": scores["ids"]}):
        nothing = new_items.worth(few, rows, group)
        assert "not known" in new_items.worth_in_words(nothing)
        assert new_items.verdict(nothing, trial).facts == [("what is new", "A stand-in.")]


def test_a_stand_in_withholds_a_tenth_from_the_runs(tiny, tiny_run):
    trial = Trial.of(tiny, [tiny_run, tiny_run])
    items = new_items.a_tenth(tiny.catalog.n_items)
    expected = tiny.train_clicks() == 0
    expected[items] = True
    assert trial.new.tolist() == [False, *expected[1:]]
    assert not trial.real and trial.words.startswith("A stand-in")
    assert ((trial.group == "new") == expected[trial.rows.target]).all()
    scored = predict(new_items.withheld(tiny_run.model(), items), trial.rows)
    np.testing.assert_allclose(trial.scores["v4"], np.stack([scored, scored]), atol=1e-6)
    assert list(trial.systems) == ["v4", "cosine of text", "cosine of image", "oracle"]
    assert trial.best == "v4"


def test_items_kept_from_train_are_the_real_thing(tiny, tiny_run):
    held_out = np.zeros(tiny.catalog.n_items + 1, np.int8)
    held_out[5] = 1
    data = replace(tiny, catalog=replace(tiny.catalog, held_out=held_out))
    trial = Trial.of(data, [tiny_run])
    assert trial.real and trial.words.startswith("The real thing")
    assert trial.new.tolist() == [False, *(tiny.train_clicks()[1:] == 0)]
    np.testing.assert_allclose(trial.scores["v4"][0], tiny_run.predictions["probability"])


def test_gains_are_auc_by_item(tiny, tiny_run):
    trial = Trial.of(tiny, [tiny_run])
    rng = np.random.default_rng(0)
    trial.__dict__["systems"] = {
        name: rng.integers(0, 9, len(trial.rows)) for name in ("v4", "ids")
    }
    table = new_items.gains(trial, "v4", least=1)
    assert len(table) > 1 and table["gain"].is_monotonic_decreasing
    new, label = (trial.group == "new").to_numpy(), trial.rows.label
    for line in table.itertuples():
        kept = new & ((label == 0) | (trial.rows.target == line.item))
        for name, value in (("ids", line.before), ("v4", line.after)):
            expected = roc_auc_score(label[kept], trial.systems[name][kept])
            assert value == pytest.approx(expected)
        assert line.clicks == (label[kept] == 1).sum() >= 1
    most = table["clicks"].max()
    fewer = new_items.gains(trial, "v4", least=most)
    assert set(fewer["item"]) == set(table.loc[table["clicks"] == most, "item"])
    better = (table["gain"] > 0).sum()
    assert f"ranks {better} better than ids" in new_items.gains_in_words(table, "v4")
    assert new_items.notes(table)[0].endswith(f"({table['clicks'][0]})")
    assert new_items.gains(trial, "v4", "v9").empty
    assert "no run of ids" in new_items.gains_in_words(pd.DataFrame(), "v4")
