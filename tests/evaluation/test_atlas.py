"""The error atlas against naive loops over rows."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from mmctr.evaluation import atlas
from mmctr.training import metrics
from tests.data.folders import load_with_fields


@pytest.fixture(scope="module")
def measured(tiny, tiny_run):
    probability = tiny_run.predictions["probability"].to_numpy()
    tiles = atlas.tiles(tiny, tiny.valid)
    return tiles, atlas.measured(tiles, tiny.valid, probability), probability


def test_tiles_hold_the_rows_that_a_loop_finds(tiny, measured):
    valid, found = tiny.valid, {(tile.by, tile.value): tile.rows.tolist() for tile in measured[0]}
    clicks, expected = tiny.train_clicks(), {}
    edges = {0: "0", 1: "1-3", 4: "4-7", 8: "8-15", 16: "16-31", 32: "32+"}
    for row, target in enumerate(valid.target.tolist()):
        names = [("all rows", "all rows")]
        names += [
            ("tag", tiny.catalog.tag_name(tag))
            for tag in set(tiny.catalog.tags[target].tolist()) - {0}
        ]
        known = clicks[target]
        names.append(("target", "new" if known == 0 else "cold" if known < 5 else "warm"))
        length = len(valid.history(row))
        names.append(("history length", edges[max(edge for edge in edges if edge <= length)]))
        for name in names:
            expected.setdefault(name, []).append(row)
    sizes = {value: len(rows) for (by, value), rows in expected.items() if by == "tag"}
    kept = {value for by, value in found if by == "tag"}
    assert len(kept) == min(atlas.MOST, len(sizes))
    rarer = [size for value, size in sizes.items() if value not in kept]
    assert min(sizes[value] for value in kept) >= max(rarer, default=0)
    assert found == {
        name: rows for name, rows in expected.items() if name[0] != "tag" or name[1] in kept
    }


def test_measures_are_scikit_learns_with_intervals_of_resampled_users(tiny, measured):
    tiles, table, probability = measured
    valid = tiny.valid
    for tile, line in zip(tiles, table.itertuples(), strict=True):
        label, score = valid.label[tile.rows], probability[tile.rows].astype(float)
        assert (line.by, line.value, line.rows) == (tile.by, tile.value, len(label))
        assert line.clicks == label.sum()
        assert line.logloss == pytest.approx(log_loss(label, score, labels=[0, 1]))
        assert line.logloss_low <= line.logloss <= line.logloss_high
        assert line.few == (min(label.sum(), (label == 0).sum()) < 30)
        if 0 < label.sum() < len(label):
            assert line.auc == pytest.approx(roc_auc_score(label, score))
            assert line.auc_low <= line.auc <= line.auc_high
        else:
            assert np.isnan([line.auc, line.auc_low, line.auc_high]).all()
    draws = metrics.bootstrap_auc(valid.user, valid.label, probability)[:, 0]
    assert table.loc[0, ["auc_low", "auc_high"]].tolist() == list(metrics.interval(draws))


def test_fields_of_items_users_and_context_have_tiles(tmp_path):
    data = load_with_fields(tmp_path)
    found = [(tile.by, tile.value, tile.rows.tolist()) for tile in atlas.tiles(data, data.valid)]
    # Valid: user 7 (FR) before item 4 (no brand), and user 9, whom the table lacks, before item 2.
    assert ("brand (item)", "unknown", [0]) in found
    assert ("brand (item)", "b", [1]) in found
    assert ("country (user)", "FR", [0]) in found
    assert ("country (user)", "unknown", [1]) in found
    assert ("device (context)", "phone", [0, 1]) in found
    assert ("pos (context)", "below 2", [0]) in found
    assert ("pos (context)", "from 2", [1]) in found
    assert all(len(rows) for _, _, rows in found)


def test_a_tag_that_an_item_has_twice_counts_once(tiny):
    tags = np.array(tiny.catalog.tags)
    tags[:, 1] = tags[:, 0]
    twice = replace(tiny, catalog=replace(tiny.catalog, tags=tags))
    found = [tile for tile in atlas.tiles(twice, tiny.valid) if tile.by == "tag"]
    expected = pd.Series(tags[tiny.valid.target][:, [0, 2]].ravel())
    numbers = {name: tag for tag, name in tiny.catalog.tag_names.items()}
    for tile in found:
        own = (tags[tiny.valid.target] == numbers[tile.value]).any(axis=1)
        assert tile.rows.tolist() == np.flatnonzero(own).tolist()
    assert [len(tile.rows) for tile in found] == sorted((len(t.rows) for t in found), reverse=True)
    assert {numbers[tile.value] for tile in found} <= set(expected)


def test_losses_sum_to_the_logloss_and_the_worst_come_first():
    label, probability = np.array([1, 0, 1, 0, 1]), np.array([0.9, 0.8, 0.1, 0.0, 0.0])
    loss = atlas.losses(label, probability)
    assert loss[:3] == pytest.approx([-math.log(0.9), -math.log(0.2), -math.log(0.1)])
    assert loss.mean() == pytest.approx(log_loss(label, probability))
    tile = atlas.Tile("tag", "a", np.array([0, 1, 2, 3]))
    assert atlas.worst(tile, loss, 2).tolist() == [2, 1]
    assert atlas.worst(tile, loss, 9).tolist() == [2, 1, 0, 3]


def test_only_tiles_that_are_clearly_below_all_rows_are_called_weak():
    table = pd.DataFrame(
        {
            "by": ["all rows", "tag", "tag", "tag", "target"],
            "value": ["all rows", "a", "b", "c", "new"],
            "auc": [0.7, 0.6, 0.5, 0.69, 0.3],
            "auc_low": [0.68, 0.55, 0.4, 0.6, 0.1],
            "auc_high": [0.72, 0.65, 0.6, 0.75, 0.5],
            "few": [False, False, False, False, True],
        }
    )
    assert atlas.weaker(table)["value"].tolist() == ["b", "a"]
    words = atlas.told(table)
    assert "Of 3 tiles 2 have an interval of AUC below that of all rows, 0.700" in words
    assert "b (tag) 0.500, 95% interval 0.400 to 0.600; a (tag) 0.600" in words
    assert "No tile's interval" in atlas.told(table.drop([1, 2]))
    assert "No tile has enough" in atlas.told(table.assign(few=True))
