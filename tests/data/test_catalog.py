"""The catalog of a folder made by hand."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmctr.data import parquet
from mmctr.data.catalog import load_catalog
from mmctr.data.dataset import Dataset, check
from mmctr.errors import DataError
from tests.data.folders import FILES, load_changed, replaced, write_folder


def test_levels_from_rows_of_a_file_in_several_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BATCH", 3)
    changes = {"item_feature": None} | replaced("train", "likes_level", 3, 11)
    with pytest.raises(DataError, match=r"train\.parquet, column likes_level, row 3: found 11"):
        load_changed(tmp_path, changes)
    changes = {"item_feature": None} | replaced("train", "item_id", 3, 2)
    assert load_changed(tmp_path, changes).catalog.likes_level.tolist() == [0, 0, 9, 7, 8]


def test_item_feature_alone_makes_a_catalog(tmp_path):
    catalog = load_changed(tmp_path, {"item_info": None}).catalog
    assert catalog.tags.tolist() == FILES["item_info"]["item_tags"]
    assert catalog.provided == {}


def test_levels_come_from_rows_where_item_feature_has_none(tmp_path):
    """Each item's level is that of the rows with it as target; train decides, valid comes next."""
    changes = {"item_feature": {"likes_level": None}, "test": {"likes_level": [1]}}
    catalog = load_changed(tmp_path, changes).catalog
    assert catalog.likes_level.tolist() == [0, 9, 6, 7, 8]
    assert catalog.views_level.tolist() == [0, 1, 0, 5, 10]


def test_levels_are_unknown_where_nothing_tells(tmp_path):
    none = {"likes_level": None, "views_level": None}
    changes = {"item_feature": None, "train": none, "test": none}
    catalog = load_changed(tmp_path, changes).catalog
    assert catalog.likes_level.tolist() == [0, 0, 1, 0, 1]


def test_covers_are_found_by_item_id(tmp_path):
    images = write_folder(tmp_path) / "item_images"
    images.mkdir()
    for name in ("1.jpg", "2.PNG", "3.txt", "0.jpg", "9.jpg", "cover.jpg"):
        (images / name).touch()
    assert Dataset.load(tmp_path).catalog.covers == {1: images / "1.jpg", 2: images / "2.PNG"}


def test_provided_embeddings_of_both_files(tmp_path):
    table = {"item_id": [3, 0, 1], "item_emb_d128_v1": [[3.0], [0.0], [1.0]]}
    catalog = load_changed(tmp_path, {"item_emb": table}).catalog
    assert set(catalog.provided) == {"item_emb_d128", "item_emb_d128_v1"}
    values = catalog.provided_embedding("item_emb_d128_v1")
    assert values.dtype == np.float32
    assert values.tolist() == [[0], [1], [0], [3], [0]]
    expected = FILES["item_info"]["item_emb_d128"]
    assert catalog.provided_embedding("item_emb_d128").tolist() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_emb": [[0.0], [float("nan")]]}, "column item_emb, row 1: found NaN or infinity"),
        ({"item_emb": [[0.0], [1.0, 2.0]]}, "column item_emb, row 1: found 2 values, expected 1"),
        ({"item_emb": [[0.1], [1.0]]}, "column item_emb, row 0: .*item 0 is padding"),
        ({"item_emb": [[0.0], None]}, "column item_emb, row 1: found a missing value"),
        ({"item_id": [0, 5]}, "column item_id, row 1: found 5, expected a number from 0 to 4"),
        ({"item_id": [1, 1]}, "column item_id, row 1: found 1 again .first in row 0"),
        ({"item_id": [[0], [1]]}, "column item_id: found list.*, expected whole numbers"),
    ],
)
def test_unfit_provided_embeddings_are_refused(tmp_path, change, message):
    table = {"item_id": [0, 1], "item_emb": [[0.0], [1.0]]} | change
    catalog = load_changed(tmp_path, {"item_emb": table}).catalog
    with pytest.raises(DataError, match=rf"item_emb\.parquet, {message}"):
        catalog.provided_embedding("item_emb")


def test_a_provided_embedding_without_rows_is_refused(tmp_path):
    table = {"item_id": pa.array([], pa.int64()), "item_emb": pa.array([], pa.list_(pa.float32()))}
    catalog = load_changed(tmp_path, {"item_emb": table}).catalog
    with pytest.raises(DataError, match=r"item_emb\.parquet has no rows"):
        catalog.provided_embedding("item_emb")


@pytest.mark.parametrize("column", ["txt_emb_BERT", "img_emb_CLIPRN50"])
def test_features_of_the_padding_item_must_be_zero(tmp_path, column):
    feature = {name: [*values, values[0]] for name, values in FILES["item_feature"].items()}
    feature["item_id"][-1] = 0
    zeros = {"txt_emb_BERT": [0.0] * 3, "img_emb_CLIPRN50": [0.0] * 2}
    for name in zeros:
        feature[name][-1] = zeros[name]
    assert load_changed(tmp_path, {"item_feature": feature}).catalog.likes_level[0] == 0
    feature[column][-1] = FILES["item_feature"][column][0]
    with pytest.raises(DataError, match=rf"item_feature\.parquet, column {column}, row 4"):
        load_changed(tmp_path, {"item_feature": feature})


def test_levels_in_rows_are_checked_when_they_are_needed(tmp_path):
    changes = replaced("train", "likes_level", 2, 11) | {"item_feature": None}
    with pytest.raises(DataError, match=r"train\.parquet, column likes_level, row 2: found 11"):
        load_changed(tmp_path, changes)


def test_a_huge_item_id_is_an_error_and_not_a_size(tmp_path):
    changes = replaced("item_feature", "item_id", 1, 2**62) | {"item_info": None}
    with pytest.raises(DataError, match=r"item_feature\.parquet, column item_id, row 1"):
        load_changed(tmp_path, changes)


def test_text_that_is_not_utf8_is_named(tmp_path):
    path = write_folder(tmp_path, nested=False) / "item_feature.parquet"
    raw = pa.array([b"good", None, b"caf\xe9", b"\xff"], pa.binary())
    titles = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    pq.write_table(pq.read_table(path).set_column(1, "item_title", titles), path)
    with pytest.raises(DataError, match=r"item_feature\.parquet, column item_title, row 2: found"):
        Dataset.load(tmp_path)


def test_a_folder_named_like_a_cover_is_none(tmp_path):
    images = write_folder(tmp_path) / "item_images"
    (images / "1.jpg").mkdir(parents=True)
    (images / "2.jpg").write_bytes(b"a picture")
    (images / "3.jpg").symlink_to(images / "nothing")
    assert list(Dataset.load(tmp_path).catalog.covers) == [2]


def test_lists_of_ids_are_no_embedding(tmp_path):
    """A case that fuzzing found: item_emb.parquet with lists where its ids should be."""
    table = {"item_id": [[0], [1]], "item_emb": [[0.0], [1.0]]}
    folder = write_folder(tmp_path, {"item_emb": table})
    assert "item_id" not in load_catalog(folder).provided
    dataset, errors = check(folder)
    assert dataset is None
    assert all("column item_id: found list" in error for error in errors)
