"""The simulated dataset: its files, and the promises of its generative model."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from mmctr.data import demo, demo_clicks
from mmctr.data.dataset import Dataset, check
from mmctr.data.demo import write_demo
from mmctr.data.demo_errors import planted
from mmctr.errors import ConfigError, DataError, MMCTRError

SIZES = {"items": 200, "users": 64}  # the smallest allowed


def contents(folder):
    """Every file of a folder, as bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_same_seed_same_bytes(tmp_path):
    first, again, other = (
        contents(write_demo(tmp_path / name, seed=seed, **SIZES))
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert first == again
    assert first["MicroLens_1M_x1/train.parquet"] != other["MicroLens_1M_x1/train.parquet"]


def test_columns_are_those_of_the_challenge_and_times(tiny_folder):
    impression = ["user_id", "item_seq", "item_id", "likes_level", "views_level", "label", "time"]
    item = ["item_id", "item_title", "item_tags", "likes_level", "views_level"]
    expected = {
        "MicroLens_1M_x1/train.parquet": impression,
        "MicroLens_1M_x1/valid.parquet": impression,
        "MicroLens_1M_x1/test.parquet": impression,
        "MicroLens_1M_x1/item_info.parquet": ["item_id", "item_tags", "item_emb_d128"],
        "item_feature.parquet": [*item, "available_since", "txt_emb_BERT", "img_emb_CLIPRN50"],
        "truth.parquet": ["split", "row", "probability"],
        "topics.parquet": ["item_id", "theme", "format", "look", "vectors"],
        "planted.parquet": ["what", "id", "kind"],
        "tags.parquet": ["tag", "name"],
    }
    found = {
        path.relative_to(tiny_folder).as_posix(): pq.read_schema(path).names
        for path in tiny_folder.rglob("*.parquet")
    }
    assert found == expected


def test_topics_are_those_of_titles_and_tags(tiny, tiny_folder):
    topics = demo.Topics.load(tiny_folder)
    assert (topics.names[0] == "").all()
    assert not topics.vectors[0].any()
    names = [*demo_clicks.THEMES, *demo_clicks.FORMATS]
    kinds = [0] * len(demo_clicks.THEMES) + [1] * len(demo_clicks.FORMATS)
    tagged, truth = 0, planted(tiny_folder)
    spoilt = set(truth.loc[truth["what"] == "title", "id"].astype(int))
    for item, tags in enumerate(tiny.catalog.tags):
        for tag in tags[(tags > 0) & (tags <= len(names))]:
            assert topics.names[item, kinds[tag - 1]] == names[tag - 1]
            assert tiny.catalog.tag_name(tag) == names[tag - 1]
            tagged += 1
        if (title := tiny.catalog.titles[item]) and item not in spoilt:
            words = demo_clicks.THEMES[topics.names[item, 0]].split()
            assert any(word in title.lower() for word in words)
    assert tagged > tiny.catalog.n_items


def test_topic_vectors_give_the_true_probabilities(tiny, tiny_folder):
    """Logits of one item differ from row to row by nothing but its affinity to the history."""
    vectors, rows = demo.Topics.load(tiny_folder).vectors, tiny.valid
    logit, rest = np.log(rows.probability / (1 - rows.probability)), []
    for row in range(len(rows)):
        history, affinity = rows.history(row), 0.0
        if len(history):
            similarity = (vectors[history] * vectors[rows.target[row]]).sum(axis=(1, 2)) / 3
            age = np.arange(len(history), 0, -1)
            affinity = np.average(similarity, weights=demo_clicks.history_weights(similarity, age))
        rest.append(logit[row] - demo_clicks.SLOPE * affinity)
    of_item = pd.Series(rest).groupby(rows.target)
    assert of_item.size().max() >= 5
    assert (of_item.max() - of_item.min()).max() < 1e-4


def test_other_data_have_no_topics(tmp_path):
    assert demo.Topics.load(tmp_path) is None


def test_the_demo_is_a_valid_dataset(tiny_folder):
    data, errors = check(tiny_folder)
    assert errors == []
    assert data.simulated


def test_sizes_are_those_documented(tiny, tmp_path):
    assert {name: len(rows) for name, rows in tiny.splits.items()} == {
        "train": 10 * 240 + 64,  # one script has as many more
        "valid": 240 * 5 // 4,
        "test": 240 * 5 // 4,
    }
    assert tiny.catalog.n_items == 300
    assert tiny.catalog.tags.shape == (301, 5)
    whole = Dataset.load(write_demo(tmp_path / "demo", **SIZES)).catalog
    assert whole.text_features.shape == (whole.n_items + 1, 768)
    assert whole.image_features.shape == (whole.n_items + 1, 1024)
    assert whole.provided_embedding("item_emb_d128").shape == (whole.n_items + 1, 128)


def test_levels_lie_in_1_to_10_and_agree_between_rows_and_items(tiny, tiny_folder):
    for name in ("likes_level", "views_level"):
        levels = getattr(tiny.catalog, name)
        assert np.bincount(levels).tolist() == [1, *[30] * 10]
        table = pd.read_parquet(tiny_folder / "MicroLens_1M_x1" / "train.parquet")
        assert (levels[table["item_id"]] == table[name]).all()


def test_histories_are_left_padded_to_100(tiny_folder):
    table = pd.read_parquet(tiny_folder / "MicroLens_1M_x1" / "train.parquet")
    histories = np.stack(table["item_seq"].to_list())
    assert histories.shape == (2464, 100)
    clicked = histories > 0
    assert (np.diff(clicked.astype(int), axis=1) >= 0).all()


def test_a_share_of_the_items_is_erroneous(tiny, tiny_folder):
    """A third each: a blank title, another item's cover, a nearly constant image feature."""
    truth, third = planted(tiny_folder), round(300 * demo.ERRONEOUS / 3)
    of = {kind: part["id"].astype(int).tolist() for kind, part in truth.groupby("kind")}
    assert np.flatnonzero(tiny.catalog.titles[1:] == "").tolist() == [
        n - 1 for n in sorted(of["untitled"])
    ]
    images = {item: path.read_bytes() for item, path in tiny.catalog.covers.items()}
    for item in of["mismatch"]:
        (source,) = (other for other in images if other != item and images[other] == images[item])
        names = demo.Topics.load(tiny_folder).names
        assert names[source, 0] != names[item, 0], "a cover of another theme"
    spread = tiny.catalog.image_features[1:].std(axis=1)
    flat = 1 + np.flatnonzero((spread < 0.001 * np.median(spread)) & (spread > 0))
    assert flat.tolist() == sorted(of["constant-image"])
    assert len(of["untitled"]) == len(of["mismatch"]) == len(of["constant-image"]) == third


@pytest.mark.parametrize("name", ["text_features", "image_features"])
def test_features_tell_of_clicks(tiny, name):
    """Similar to the history is clicked more: three standard deviations above chance."""
    rows, features = tiny.train, getattr(tiny.catalog, name)[1:]
    features = features - features.mean(axis=0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    chosen = np.flatnonzero(rows.history_length > 0)
    similarity = [
        features[rows.target[row] - 1] @ features[rows.history(row) - 1].mean(axis=0)
        for row in chosen
    ]
    clicks = rows.label[chosen].sum()
    # The standard deviation of the Mann-Whitney statistic if nothing depended on similarity.
    chance = np.sqrt((len(chosen) + 1) / (12 * clicks * (len(chosen) - clicks)))
    assert roc_auc_score(rows.label[chosen], similarity) > 0.5 + 3 * chance


@pytest.mark.parametrize("sizes", [{"items": 199, "users": 64}, {"items": 200, "users": 63}])
def test_sizes_too_small_are_refused(tmp_path, sizes):
    with pytest.raises(ConfigError, match="at least 200 and 64"):
        write_demo(tmp_path / "demo", **sizes)
    assert list(tmp_path.iterdir()) == []


def test_the_smallest_demo_loads(tmp_path):
    data = Dataset.load(write_demo(tmp_path / "deep" / "er" / "demo", **SIZES))
    assert data.catalog.n_items == 200


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "disk full")

    monkeypatch.setattr(demo, "_write_impressions", fail)  # the last step
    with pytest.raises(MMCTRError, match=r"demo could not be written \(disk full\)"):
        write_demo(tmp_path / "demo", **SIZES)
    assert list(tmp_path.iterdir()) == []


def test_a_repeated_write_leaves_the_first_as_it_was(tmp_path):
    folder = write_demo(tmp_path / "demo", seed=1, **SIZES)
    before = contents(folder)
    with pytest.raises(DataError, match="exists already"):
        write_demo(folder, seed=2, **SIZES)
    assert contents(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_every_item_has_a_cover(tiny):
    covers = tiny.catalog.covers
    assert sorted(covers) == list(range(1, 301))
    with Image.open(covers[300]) as image:
        image.load()
        assert image.size == (demo.COVER_SIZE, demo.COVER_SIZE)
