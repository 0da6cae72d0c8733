"""Items of any table: their titles and tags, and ready-made embeddings that join them."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mmctr.content.fusion import available_strategies, embed
from mmctr.data.dataset import Dataset
from mmctr.data.importing import writing
from mmctr.data.importing.items import joining_sign, tag_lists
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import DataError
from tests.data.importing.logs import ITEMS, LOG, imported, written


def vectors(numbers, width, shift=0.0):
    """A list of numbers for each item number, all different."""
    return [[shift + number + place / 10 for place in range(width)] for number in numbers]


def features_of(numbers, **columns):
    """A features table with rows for these items, a text and an image column and others."""
    names = {"item_id": [f"i{number}" for number in numbers]}
    embeddings = {"txt_emb": vectors(numbers, 5), "img_emb": vectors(numbers, 3, 100)}
    return pd.DataFrame(names | embeddings | columns)


def test_ready_made_embeddings_join_by_item_id(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "EMBEDDING_ROWS", 5)  # 12 items are three parts
    numbers = [11, 3, 99, 0, 7, 5, 4]
    extra = {"graph": vectors(numbers, 4, 200), "note": "no numbers", "year": 1999}
    features = features_of(numbers, **extra)
    out, facts = imported(tmp_path, LOG, features=features)
    catalog = Dataset.load(out).catalog
    by_id = features.set_index("item_id")
    found = {
        "txt_emb": catalog.text_features,
        "img_emb": catalog.image_features,
        "graph": catalog.provided_embedding("graph"),
    }
    for column, values in found.items():
        rows = by_id[column].reindex(ITEMS["item_id"])
        width = len(by_id[column].iloc[0])
        expected = [row if isinstance(row, list) else [0.0] * width for row in rows]
        assert np.array_equal(values[1:], np.array(expected, dtype=np.float32)), column
        assert not values[0].any(), "row 0 is padding"
    assert list(catalog.provided) == ["graph"]
    counts = {name: count for name, count in facts["counts"].items() if "features" in name}
    assert counts == {"features": 6, "without_features": 6, "features_of_unknown_items": 1}
    assert facts["sources"][-1].endswith("features.parquet")


def test_embedding_columns_have_any_name(tmp_path):
    features = features_of(range(12)).rename(columns={"txt_emb": "words", "img_emb": "look"})
    chosen = {"text_embedding_column": "words", "image_embedding_column": "look"}
    (tmp_path / "chosen").mkdir()
    out, _ = imported(tmp_path / "chosen", LOG, features=features, **chosen)
    dataset = Dataset.load(out)
    assert (dataset.catalog.text_features.shape, dataset.catalog.image_features.shape) == (
        (13, 5),
        (13, 3),
    )
    assert {name: facts["model"] for name, facts in dataset.encoders.items()} == {
        "txt_emb_BERT": "features.parquet:words (ready-made)",
        "img_emb_CLIPRN50": "features.parquet:look (ready-made)",
    }
    assert json.loads((out / "dataset.json").read_text())["encoders"] == dataset.encoders
    (tmp_path / "others").mkdir()
    out, _ = imported(tmp_path / "others", LOG, features=features)
    catalog = Dataset.load(out).catalog
    assert (catalog.text_features, catalog.image_features) == (None, None)
    assert available_strategies(catalog) == ["provided:look", "provided:words"]
    assert embed(catalog, "provided:look")[0].shape == (13, 3)  # a name of another file, too
    (tmp_path / "challenge").mkdir()
    features = features_of(range(12)).rename(columns={"txt_emb": "txt_emb_BERT"})
    out, _ = imported(tmp_path / "challenge", LOG, features=features)
    assert Dataset.load(out).catalog.text_features.shape == (13, 5)


@pytest.mark.parametrize("as_text", ["items", "features"])
def test_ids_of_features_may_have_another_type(tmp_path, as_text):
    log = pd.DataFrame(LOG, columns=["user_id", "item_id", "timestamp"])
    items, features = ITEMS.assign(item_id=range(12)), features_of([4, 2])
    features["item_id"] = [4, 2]
    for name, table in (("items", items), ("features", features)):
        if name == as_text:
            table["item_id"] = table["item_id"].astype(str)
    out, _ = imported(tmp_path, log, items, features=features)
    text = Dataset.load(out).catalog.text_features
    assert np.flatnonzero(text.any(axis=1)).tolist() == [3, 5]
    assert text[5] == pytest.approx([4.0, 4.1, 4.2, 4.3, 4.4])


def test_fixed_size_lists_and_other_number_types_are_embeddings_too(tmp_path):
    numbers = range(12)
    values = np.array(vectors(numbers, 4), dtype=np.float16)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 4)
    whole = pa.array([[number, -number] for number in numbers], pa.large_list(pa.int32()))
    names = pa.array([f"i{number}" for number in numbers])
    empty = pa.array([[]] * 12)  # no numbers, no embedding
    columns = {"item_id": names, "txt_emb": fixed, "counts": whole, "empty": empty}
    out, _ = imported(tmp_path, LOG, features=pa.table(columns))
    catalog = Dataset.load(out).catalog
    assert np.array_equal(catalog.text_features[1:], values.astype(np.float32))
    assert list(catalog.provided) == ["counts"]
    assert catalog.provided_embedding("counts")[12].tolist() == [11, -11]


@pytest.mark.parametrize("inner", [(3,), (1, 3), (3, 1)])
def test_tensors_and_nested_lists_are_one_vector_an_item(tmp_path, inner):
    values = np.arange(36, dtype=np.float32).reshape(12, 3) + 0.25
    shaped = values.reshape(12, *inner)
    nested = pa.array(shaped.tolist())
    forms = {
        "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(shaped),
        "half": pa.FixedShapeTensorArray.from_numpy_ndarray(shaped.astype(np.float16)),
        "lists": nested,
        "large": nested.cast(pa.large_list(nested.type.value_type)),
    }
    names = {"item_id": [f"i{number}" for number in range(12)]}
    out, _ = imported(tmp_path, LOG, features=pa.table(names | forms), negatives=1)
    catalog = Dataset.load(out).catalog
    order = [int(own[1:]) for own in catalog.ids[1:]]
    for name in forms:
        assert np.array_equal(catalog.provided_embedding(name)[1:], values[order]), name


def test_arrays_of_pandas_are_vectors(tmp_path):
    values = np.arange(36).reshape(12, 3) / 4
    frame = pd.DataFrame({"item_id": ITEMS["item_id"], "txt_emb": list(values)})
    out, _ = imported(tmp_path, LOG, features=pa.Table.from_pandas(frame), negatives=1)
    catalog = Dataset.load(out).catalog
    order = [int(own[1:]) for own in catalog.ids[1:]]
    assert np.array_equal(catalog.text_features[1:], values[order])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"item_id": ["i0", "i1", "i0"]}, {}, "column item_id: found i0 again, expected each"),
        ({"item_id": ["x", "y", "z"]}, {}, "no row of an item of the items table"),
        ({"txt_emb": [[1.0], [np.nan], [2.0]]}, {}, "column txt_emb, item i1: found a missing"),
        ({"img_emb": [[1.0], [2.0], [np.inf]]}, {}, "column img_emb, item i2: found NaN or inf"),
        (
            {"graph": [[1.0], [2.0, 3.0], [4.0]]},
            {},
            "column graph, item i1: found 2 values, expected 1 as in item i0",
        ),
        ({"txt_emb": ["a", "b", "c"]}, {"text_embedding_column": "txt_emb"}, "found varchar, exp"),
        ({}, {"text_embedding_column": "words"}, "no column words, only item_id, txt_emb, img_emb"),
        (
            {},
            {"image_embedding_column": "item_id"},
            "column item_id: found varchar, expected",
        ),
    ],
)
def test_features_that_cannot_be_used_are_one_sentence(tmp_path, change, options, message):
    features = features_of(range(3)).assign(**change)
    with pytest.raises(DataError, match=rf"features\.parquet.*{message}") as failure:
        imported(tmp_path, LOG, features=features, **options)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        (["item_id"], "has no column item_id, only txt_emb, img_emb"),
        (["txt_emb", "img_emb"], "has no column of embeddings, only item_id"),
    ],
)
def test_features_need_ids_and_embeddings(tmp_path, drop, message):
    with pytest.raises(DataError, match=message):
        imported(tmp_path, LOG, features=features_of(range(3)).drop(columns=drop))


@pytest.mark.parametrize("name", ["features.parquet", "nowhere.parquet"])
def test_odd_features_files_are_one_sentence(tmp_path, name):
    imported(tmp_path, LOG)
    if not name.startswith("nowhere"):
        (tmp_path / name).write_text('item_id,txt_emb\ni1,"[1, 2]"\n')
    paths = [tmp_path / "log.csv"], [tmp_path / "items.parquet"], None, tmp_path / "second"
    with pytest.raises(DataError, match=rf"{name} is n"):
        import_dataset(*paths, Recipe.of(), [tmp_path / name])


def test_vectors_come_as_lists_json_text_or_columns_and_may_be_missing(tmp_path):
    values = np.array(vectors(range(3), 4), dtype=np.float32)
    names = {"item_id": ["i2", "i0", "i1"]}
    forms = {
        "lists": {"txt_emb": list(values[[2, 0, 1]])},
        "json": {"txt_emb": [json.dumps(row.tolist()) for row in values[[2, 0, 1]]]},
        "wide": {f"txt_emb_{n}": values[[2, 0, 1], n] for n in (3, 0, 2, 1)},
    }
    for name, columns in forms.items():
        (tmp_path / name).mkdir()
        features = pd.DataFrame(names | columns)
        out, facts = imported(tmp_path / name, LOG, features=features, negatives=1)
        found = Dataset.load(out).catalog.text_features
        np.testing.assert_allclose(found[1:4], values, rtol=1e-6, err_msg=name)
        assert not found[4:].any()
    features = pd.DataFrame(names | {"txt_emb": [[1.0, 2.0], None, [3.0, 4.0]]})
    (tmp_path / "missing").mkdir()
    out, facts = imported(tmp_path / "missing", LOG, features=features, negatives=1)
    assert Dataset.load(out).catalog.text_features[1:4].tolist() == [[0, 0], [3, 4], [1, 2]]
    assert facts["counts"]["without_a_vector"] == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a|b, c", "d", None, ""], [["a", "b, c"], ["d"], [], []]),
        (["a;b", "c"], [["a", "b"], ["c"]]),
        (["a, b,a", "c"], [["a", "b"], ["c"]]),
        ([["a", None, " b "], []], [["a", "b"], []]),
        (['["a", "b|c"]', "[]"], [["a", "b|c"], []]),
        (["['a', 'b']", "[nan]"], [["a", "b"], ["nan"]]),
        ([[1, 2], [3]], [["1", "2"], ["3"]]),
        (["['a' 'b c'\n \"it's\"]", "['d']", "[]"], [["a", "b c", "it's"], ["d"], []]),
        (["['a' None 'b']", "[None]", "[1 2]"], [["a", "b"], [], ["1", "2"]]),
        (["('a', 'b')", "('c',)", "()"], [["a", "b"], ["c"], []]),
        (["{'a', 'b'}", '{"c"}', "{}"], [["a", "b"], ["c"], []]),
        (["{a,b}", '{"c d","e, \\"f\\"",NULL}'], [["a", "b"], ["c d", 'e, "f"']]),
        (['["\\ud83d\\ude00", null]'], [["\U0001f600"]]),
        (["(no genres listed)", "a|b"], [["(no genres listed)"], ["a", "b"]]),
        (["[a b, c]"], [["a b", "c"]]),
    ],
)
def test_tags_are_lists_or_text_of_lists_or_joined_words(values, expected):
    assert tag_lists(values, joining_sign(values)) == expected


def words_of(folder, items):
    """What an import of these items says of their columns."""
    folder.mkdir()
    told = []
    imported(folder, LOG, items, say=told.append, negatives=1)
    return [words for words in told if words.startswith(("titles", "tags"))]


def test_what_was_taken_as_titles_and_tags_is_said(tmp_path):
    assert words_of(tmp_path / "signs", ITEMS) == [
        "titles: column title",
        "tags: column genres, joined by '|', 3 names, 1 of them with another sign within, such as "
        "'Sci-Fi, Noir'",
    ]
    lists = ITEMS.assign(tags=[["a", "b"]] * 12).drop(columns="title")
    assert words_of(tmp_path / "lists", lists) == [
        "titles: none, there is no column title",
        "tags: column tags, 2 names",
    ]
    assert words_of(tmp_path / "none", ITEMS[["item_id"]]) == [
        "titles: none, there is no column title",
        "tags: none, there is no column tags or genres",
    ]


def test_items_are_numbered_by_their_ids_and_titles_and_tags_may_be_missing(tmp_path):
    items = pd.DataFrame({"item_id": ["10", "9", "a", "1", "2"]})
    log = pd.DataFrame({"user_id": "u", "item_id": [10, 9, 1], "timestamp": [1, 2, 3]})
    out, _ = imported(tmp_path, log, items, negatives=1)
    ids = pd.read_parquet(out / "item_ids.parquet")
    assert ids["original_id"].tolist() == ["1", "2", "9", "a", "10"]
    assert ids["item_id"].tolist() == [1, 2, 3, 4, 5]
    catalog = Dataset.load(out).catalog
    assert not catalog.tags.any()
    assert catalog.titles.tolist() == [""] * 6


def test_each_side_may_name_its_ids_otherwise(tmp_path):
    items = ITEMS.rename(columns={"item_id": "asin"})
    features = features_of(range(12)).rename(columns={"item_id": "key"})
    chosen = {"items_id_column": "asin", "features_id_column": "key"}
    out, facts = imported(tmp_path, LOG, items, features=features, negatives=1, **chosen)
    assert facts["counts"]["features"] == 12
    assert Dataset.load(out).catalog.text_features[1:].any(axis=1).all()


def test_a_missing_id_is_told(tmp_path):
    with pytest.raises(DataError, match="found no id in 1 rows, expected one for each item"):
        imported(tmp_path, LOG, pd.concat([ITEMS, ITEMS[:1].assign(item_id=None)]))


def imported_forms(folder, form, items, features=None, covers=None, log=LOG):
    """Import tables of one form: dataset, facts."""
    log = pd.DataFrame(log, columns=["user_id", "item_id", "timestamp"])
    log["item_id"] = "i" + log["item_id"].astype(str)
    tables = [written(folder, "features", features, form)] if features is not None else []
    paths = [written(folder, "log", log, form)], [written(folder, "items", items, form)]
    recipe = Recipe.of(negatives=0)
    facts = import_dataset(*paths, covers, folder / "made", recipe, tables)
    return Dataset.load(folder / "made"), facts


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_text_has_no_quotes_of_its_file_and_tags_are_split(tmp_path, form):
    items = ITEMS.assign(title='A "quote"', genres=["Adventure|Comedy"] * 11 + ["War"])
    dataset, _ = imported_forms(tmp_path, form, items)
    assert dataset.catalog.titles[1] == 'A "quote"'
    names = pd.read_parquet(tmp_path / "made" / "tags.parquet")["name"]
    assert sorted(names) == ["Adventure", "Comedy", "War"]


def test_lists_of_words_and_numbers_in_json_are_tags(tmp_path):
    items = ITEMS.assign(genres=[["a", 1], ["b"]] * 6)
    imported_forms(tmp_path, "jsonl", items)
    names = pd.read_parquet(tmp_path / "made" / "tags.parquet")["name"]
    assert sorted(names) == ["1", "a", "b"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["numpy", "json", "wide"])
def test_vectors_as_text_or_in_columns_may_be_missing(tmp_path, form, kind):
    values = np.array(vectors(range(4), 3, -2), dtype=np.float32)
    frame = {
        "numpy": {"txt_emb": [str(row) for row in values]},
        "json": {"txt_emb": [json.dumps(row.tolist()) for row in values]},
        "wide": {f"txt_emb_{place}": values[:, place] for place in range(3)},
    }[kind]
    frame = pd.DataFrame({"item_id": [f"i{n}" for n in range(4)], **frame})
    frame.loc[2, [name for name in frame if name != "item_id"]] = None
    dataset, facts = imported_forms(tmp_path, form, ITEMS, frame)
    found = dataset.catalog.text_features
    np.testing.assert_allclose(found[[1, 2, 4]], values[[0, 1, 3]], rtol=1e-6)
    assert not found[3].any()
    assert (facts["counts"]["features"], facts["counts"]["without_a_vector"]) == (4, 1)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"e_0": [1, None, 3], "e_1": [1.0, 2, 3]}, "column e, item i5: found a missing value"),
        ({"e": ["[1 2]", "[3 4 5]", "[6 7]"]}, "column e, item i5: found 3 values, expected 2"),
        ({"e": ["[1, 2]", "[3, x]", "[6, 7]"]}, "column e, item i5: found a missing value"),
        ({"e": ["[1 2]", "[1 ... 4]", "[6 7]"]}, "column e: found a vector cut short by"),
    ],
)
def test_vectors_that_cannot_be_used_name_the_item(tmp_path, form, columns, message):
    # Item i99 is unknown, so that rows of the table are not those of the join.
    names = ["i99", "i0", "i5", "i1"]
    columns = {name: [values[0], *values] for name, values in columns.items()}
    frame = pd.DataFrame({"item_id": names, **columns})
    with pytest.raises(DataError, match=message) as caught:
        imported_forms(tmp_path, form, ITEMS, frame)
    assert "\n" not in str(caught.value)


def test_items_without_rows_are_told(tmp_path):
    with pytest.raises(DataError, match=r"items\.csv has columns, but no rows"):
        imported_forms(tmp_path, "csv", ITEMS[:0])
