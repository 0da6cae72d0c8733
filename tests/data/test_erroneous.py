"""errors.parquet keeps what a person decided, and what it excludes is unknown to a dataset."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmctr.content.fusion import item_embeddings
from mmctr.data import erroneous, schema
from mmctr.data.erroneous import Exclusion, excluding, read_errors, save_errors, write_errors
from mmctr.errors import ConfigError, DataError
from tests.data.folders import FILES, NAMES, load_changed, write_folder

KINDS = {"dark": "19 of 20 pixels", "untitled": "no letter", "sweep": "half of it"}


def rows(*lines):
    return pd.DataFrame(lines, columns=["what", "id", "kind", "score"])


FOUND = rows(
    ("cover", "0007", "dark", 0.9), ("title", "x-2", "untitled", 1.0), ("user", "ann", "sweep", 2.0)
)


def decided(folder):
    """What is excluded, by what, id and kind."""
    table = read_errors(folder)
    return {tuple(line[:3]): line[4] for line in table.itertuples(index=False)}


def test_all_that_is_found_is_excluded_at_first(tmp_path):
    written = write_errors(tmp_path, FOUND, KINDS)
    assert written["excluded"].all()
    pd.testing.assert_frame_equal(read_errors(tmp_path), written)
    assert erroneous.looked_for(tmp_path) == KINDS


def test_decisions_and_rows_of_a_person_outlive_another_finding(tmp_path):
    write_errors(tmp_path, FOUND, KINDS)
    table = read_errors(tmp_path)
    table.loc[table["kind"] == "dark", "excluded"] = False
    hers = rows(("cover", "x-2", "ugly", np.nan), ("title", "0007", "untitled", np.nan))
    table = pd.concat([table, hers.assign(excluded=True)])
    table.to_parquet(tmp_path / "errors.parquet")  # as pandas writes it, without our notes
    # The dark cover was mended, the user found no more, and another title is empty.
    again = rows(("title", "x-2", "untitled", 1.0), ("title", "<b>", "untitled", 1.0))
    write_errors(tmp_path, again, KINDS)
    assert decided(tmp_path) == {
        ("cover", "0007", "dark"): False,
        ("title", "x-2", "untitled"): True,
        ("title", "<b>", "untitled"): True,
        ("cover", "x-2", "ugly"): True,
        ("title", "0007", "untitled"): True,
    }
    write_errors(tmp_path, FOUND, KINDS)
    assert decided(tmp_path)["cover", "0007", "dark"] is False, "found again, and still kept"


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("excluded", [True, None, True], r"column excluded, row 1: found None, expected a value"),
        ("excluded", ["yes", "no", "?"], r"column excluded: .*expected true or false"),
        ("what", ["cover", "item", "shop"], r"column what, row 2: found shop, expected one of"),
        ("score", ["a", "b", "c"], r"column score: .*expected numbers"),
        ("id", None, r"has no column id"),
    ],
)
def test_a_spoilt_file_is_refused_with_the_place(tmp_path, column, values, said):
    table = FOUND.assign(excluded=True)
    table = table.drop(columns=column) if values is None else table.assign(**{column: values})
    table.to_parquet(tmp_path / "errors.parquet")
    with pytest.raises(DataError, match=said):
        read_errors(tmp_path)


@pytest.mark.parametrize("said", [b"", b"dark,sweep", b"[1]", b"[" * 100_000, b"\xff"])
def test_a_file_that_does_not_say_what_was_looked_for(tmp_path, said):
    table = pa.Table.from_pandas(FOUND.assign(excluded=True), preserve_index=False)
    table = table.replace_schema_metadata({schema.ERROR_KINDS: said})
    pq.write_table(table, tmp_path / "errors.parquet")
    assert erroneous.looked_for(tmp_path) == {}


def test_without_the_file_the_command_is_named(tmp_path):
    with pytest.raises(DataError, match=r"has no errors.parquet: run mmctr data clean"):
        read_errors(tmp_path)


def test_ids_that_a_tool_made_numbers_are_text_again(tmp_path):
    FOUND.assign(excluded=True, id=[1, 2, 3]).to_parquet(tmp_path / "errors.parquet")
    assert read_errors(tmp_path)["id"].tolist() == ["1", "2", "3"]


@pytest.fixture
def data(tmp_path):
    """The folder of four items with names, and errors of each sort."""
    dataset = load_changed(tmp_path, NAMES)
    item = rows(("item", "9007199254740993", "mismatch", 9.0))
    write_errors(tmp_path, pd.concat([FOUND, item]), KINDS | {"mismatch": "at odds"})
    return dataset


def test_unknown_features_are_the_mean_of_the_known(data):
    """By hand: row 1 is item 0007, row 2 is x-2, row 4 the mismatch."""
    changed = excluding(data, "untitled,dark,mismatch").catalog
    text, image = data.catalog.text_features, data.catalog.image_features
    expected = text.copy()
    expected[[2, 4]] = (text[1] + text[3]) / 2
    np.testing.assert_allclose(changed.text_features, expected)
    expected = image.copy()
    expected[[1, 4]] = (image[2] + image[3]) / 2
    np.testing.assert_allclose(changed.image_features, expected)
    np.testing.assert_allclose(
        changed.provided_embedding("item_emb_d128")[1:],
        np.tile(data.catalog.provided_embedding("item_emb_d128")[3], (4, 1)),
        err_msg="an item without title or cover has no ready-made embedding either",
    )
    assert changed.titles.tolist() == data.catalog.titles.tolist(), "they stay, to be shown"


def test_of_an_item_that_a_person_leaves_out_all_content_is_unknown(data):
    """x-2, row 2, is left out as a whole; its tags and clicks are no content and stay."""
    hers = rows(("item", "x-2", "ugly", np.nan)).assign(excluded=True)
    save_errors(data.folder, pd.concat([read_errors(data.folder), hers]))
    changed, known = excluding(data, "ugly"), np.array([1, 3, 4])
    for name in ("text_features", "image_features"):
        before, after = getattr(data.catalog, name), getattr(changed.catalog, name)
        np.testing.assert_allclose(after[2], before[known].mean(axis=0), rtol=1e-6)
        np.testing.assert_array_equal(after[known], before[known])
    before = data.catalog.provided_embedding("item_emb_d128")
    after = changed.catalog.provided_embedding("item_emb_d128")
    np.testing.assert_allclose(after[2], before[known].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(changed.catalog.tags, data.catalog.tags)
    assert changed.train is data.train
    for name in ("v1", "v2", "v4"):
        np.testing.assert_allclose(item_embeddings(changed, name, 2)[2], 0, atol=1e-5)


def test_rows_of_excluded_users_leave_train_alone(data):
    changed = excluding(data, "sweep")
    ann = data.train.user == 7
    assert ann.any()
    assert changed.train.target.tolist() == data.train.target[~ann].tolist()
    assert changed.valid is data.valid
    assert changed.split("test") is data.split("test")
    assert changed.fingerprint == data.fingerprint
    np.testing.assert_array_equal(changed.catalog.text_features, data.catalog.text_features)


def test_what_a_person_keeps_is_not_left_out(data):
    table = read_errors(data.folder)
    table.loc[table["kind"] == "dark", "excluded"] = False
    save_errors(data.folder, table)
    changed = excluding(data, "dark")
    np.testing.assert_array_equal(changed.catalog.image_features, data.catalog.image_features)
    assert changed.exclusion == Exclusion(("dark",))


def test_all_is_every_kind(data):
    found = excluding(data, "all").exclusion
    assert found.titles == ("9007199254740993", "x-2")
    assert found.covers == ("0007", "9007199254740993")
    assert found.users == ("ann",)
    assert found.in_words() == "all: 2 titles, 2 covers, 1 users"


def test_an_exclusion_is_applied_once_and_outlives_json(data):
    once = excluding(data, "all")
    assert once.exclusion.of(once) is once
    assert Exclusion.stated(once.exclusion.as_json()) == once.exclusion
    assert excluding(data, None) is data
    assert excluding(data, "") is data


def test_a_kind_that_nobody_looked_for_is_refused(data):
    with pytest.raises(ConfigError, match=r"Found 'drak' to exclude, expected all or kinds of"):
        excluding(data, "dark,drak")


def test_without_any_row_to_learn_from(data):
    users = rows(("user", "ann", "sweep", 2.0), ("user", "0008", "sweep", 2.0))
    write_errors(data.folder, users, KINDS)
    with pytest.raises(ConfigError, match="All 4 train rows"):
        excluding(data, "sweep")


def test_items_of_other_data_are_passed_over(tmp_path):
    dataset = load_changed(tmp_path, {})
    exclusion = Exclusion(("dark",), covers=("3", "no such item"))
    changed = exclusion.of(dataset).catalog
    assert changed.unknown.tolist() == [3]


def test_data_without_features_have_nothing_to_lose(tmp_path):
    kept = FILES["item_feature"].keys() - {"txt_emb_BERT", "img_emb_CLIPRN50"}
    changes = {"item_feature": dict.fromkeys(FILES["item_feature"].keys() - kept)}
    dataset = load_changed(write_folder(tmp_path, changes), changes)
    assert Exclusion(("dark",), covers=("3",)).of(dataset).catalog.image_features is None
