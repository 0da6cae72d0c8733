"""The cache of a dataset: the same arrays, never stale, never trusted blindly, never an error."""

import shutil
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmctr.data import cache, dataset, impressions
from mmctr.data.dataset import Dataset, check
from mmctr.data.fingerprint import files_fingerprint
from mmctr.errors import DataError

ITEMS = 3
ROWS = {
    "user_id": [1, 1, 2],
    "item_seq": [[0, 1], [0, 1], [2, 3]],
    "item_id": [2, 3, 1],
    "label": [0, 1, 0],
}
INFO = {"item_id": [0, 1, 2, 3], "item_tags": [[0, 0], [1, 2], [3, 0], [4, 0]]}
FEATURE = {
    "item_id": [1, 2, 3],
    "item_title": ["one", "two", "three"],
    "likes_level": [1, 2, 3],
    "txt_emb_BERT": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
}
TRUTH = {
    "split": ["train"] * 3 + ["valid"] * 3,
    "row": [0, 1, 2, 0, 1, 2],
    "probability": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
}


@pytest.fixture(autouse=True)
def caches_small_datasets(monkeypatch):
    """Tests are small, and cached all the same."""
    monkeypatch.setattr(cache, "SMALLEST", 0)


@pytest.fixture
def folder(tmp_path):
    """A dataset that was never loaded."""
    return write(tmp_path / "data")


def write(folder, **tables):
    """Write a dataset; a table by name takes the place of the usual one, None leaves it out."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"train": ROWS, "valid": ROWS, "item_info": INFO, "item_feature": FEATURE}
    for name, columns in (usual | tables).items():
        if columns is not None:
            pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def entry(folder):
    """The only entry of a dataset's cache."""
    (found,) = (folder / ".cache" / "mmctr").iterdir()
    return found


def arrays(data):
    """Every array of a dataset, by name; None where there is none."""
    parts = {"catalog": data.catalog, **data.splits}
    return {
        f"{part} {name}": value
        for part, values in parts.items()
        for name, value in vars(values).items()
        if value is None or isinstance(value, np.ndarray)
    }


def assert_same(found, expected):
    """Equal in everything: arrays, types, titles, covers, fingerprint."""
    found_arrays, expected_arrays = arrays(found), arrays(expected)
    assert found_arrays.keys() == expected_arrays.keys()
    for name, array in expected_arrays.items():
        assert getattr(found_arrays[name], "dtype", None) == getattr(array, "dtype", None), name
        np.testing.assert_array_equal(found_arrays[name], array, err_msg=name)
    assert found.catalog.covers == expected.catalog.covers
    assert found.catalog.provided == expected.catalog.provided
    assert found.fingerprint == expected.fingerprint


@pytest.fixture
def no_reading(monkeypatch):
    """From when it is called, no split can be read from its file."""

    def forbid():
        def fail(*_, **__):
            raise AssertionError("a file was read again")

        monkeypatch.setattr(dataset, "load_impressions", fail)

    return forbid


def test_a_second_load_reads_no_rows_and_is_the_same(folder, no_reading):
    write(folder, truth=TRUTH, test={name: values[:2] for name, values in ROWS.items()})
    truth = {
        name: [*TRUTH[name], *values]
        for name, values in {
            "split": ["test"] * 2,
            "row": [0, 1],
            "probability": [0.7, 0.8],
        }.items()
    }
    write(folder, truth=truth)
    fresh = Dataset.load(folder)
    no_reading()
    again = Dataset.load(folder)
    assert_same(again, fresh)
    assert again.simulated
    assert list(again.splits) == ["train", "valid", "test"]


LISTS = st.lists(st.lists(st.integers(0, ITEMS), max_size=4), min_size=1, max_size=8)


@given(LISTS, st.booleans(), st.booleans(), st.lists(st.integers(0, 1), min_size=1, max_size=3))
def test_any_dataset_is_the_same_from_the_cache(tmp_path_factory, clicks, feature, info, label):
    ones = [1] * len(clicks)
    seqs = pa.array(clicks, pa.list_(pa.int64()))
    train = {"user_id": ones, "item_seq": seqs, "item_id": ones, "label": ones}
    test = {name: values[: len(label)] for name, values in ROWS.items()} | {"label": label}
    tables = {
        "item_feature": FEATURE if feature and info else None,
        "item_info": INFO,
        "train": train,
        "test": test if info else None,
    }
    folder = write(tmp_path_factory.mktemp("any"), **tables)
    fresh = Dataset.load(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(dataset, "load_impressions")
        assert_same(Dataset.load(folder), fresh)


def test_small_datasets_are_not_cached(folder, monkeypatch):
    size = sum(
        array.nbytes
        for name, array in arrays(Dataset.load(folder)).items()
        if array is not None and "titles" not in name
    )
    shutil.rmtree(folder / ".cache")
    monkeypatch.setattr(cache, "SMALLEST", size + 1)
    Dataset.load(folder)
    assert not (folder / ".cache").exists()
    monkeypatch.setattr(cache, "SMALLEST", size)
    Dataset.load(folder)
    assert entry(folder).is_dir()


def test_changed_files_are_read_and_the_old_entry_goes(folder):
    before = Dataset.load(folder)
    old = entry(folder)
    write(folder, train=ROWS | {"item_id": [3, 3, 3]})
    after = Dataset.load(folder)
    assert after.train.target.tolist() == [3, 3, 3]
    assert after.fingerprint != before.fingerprint
    assert entry(folder) != old
    assert before.train.target.tolist() == [2, 3, 1], "what was loaded before stays as it was"


def test_an_entry_of_another_layout_is_not_used_and_goes(folder, monkeypatch):
    Dataset.load(folder)
    old = entry(folder)
    monkeypatch.setattr(cache, "LAYOUT", cache.LAYOUT + 1)
    Dataset.load(folder)
    assert entry(folder) != old


def test_files_changed_while_they_are_read_are_not_cached(folder, monkeypatch):
    original = dataset.load_impressions

    def change_first(path, *args, **kwargs):
        if path.stem == "train":
            write(folder, train=ROWS | {"item_id": [3, 3, 3]})
        return original(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "load_impressions", change_first)
        Dataset.load(folder)
    write(folder)
    assert Dataset.load(folder).train.target.tolist() == [2, 3, 1]


def test_titles_and_covers_may_change_beside_the_entry(folder, no_reading):
    Dataset.load(folder)
    no_reading()
    images = folder / "item_images"
    images.mkdir()
    (images / "2.jpg").touch()
    again = Dataset.load(folder)
    assert again.catalog.covers == {2: images / "2.jpg"}
    assert again.catalog.titles.tolist() == ["", "one", "two", "three"]


def cut(path):
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 is how a zip archive begins"),
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: np.save(path.open("wb"), np.array([1, 2], dtype=object)),
        lambda path: np.save(path.open("wb"), np.zeros(2, dtype=np.int16)),
    ],
)
@pytest.mark.parametrize("name", [cache.FORMS, "train.history_items.npy", "catalog.tags.npy"])
def test_a_damaged_entry_is_read_anew_and_mended(folder, no_reading, name, damage):
    Dataset.load(folder)
    shutil.copytree(folder, folder.with_name("sound"))
    fresh = Dataset.load(folder.with_name("sound"))
    damage(entry(folder) / name)
    assert_same(Dataset.load(folder), fresh)
    no_reading()
    assert_same(Dataset.load(folder), fresh)


def test_a_folder_that_cannot_be_written_is_loaded(folder):
    (folder / ".cache").write_text("not a folder")
    fresh = Dataset.load(folder)
    assert_same(Dataset.load(folder), fresh)
    assert (folder / ".cache").read_text() == "not a folder"


def test_a_full_disk_means_no_cache(folder, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache.np, "save", fail)
        Dataset.load(folder)
    assert list((folder / ".cache" / "mmctr").iterdir()) == []


def test_what_other_tools_cache_in_the_folder_stays(folder):
    other = folder / ".cache" / "huggingface" / "download.metadata"
    other.parent.mkdir(parents=True)
    other.touch()
    Dataset.load(folder)
    assert other.exists()


def test_arrays_are_changed_in_memory_alone(folder, recwarn):
    Dataset.load(folder)
    mapped = Dataset.load(folder)
    files = {path: path.read_bytes() for path in entry(folder).iterdir()}
    for name, array in arrays(mapped).items():
        if array is not None and name != "catalog titles":
            assert type(array) is np.ndarray and isinstance(array.base, np.memmap), name
            assert array.flags.writeable, "else writing to it would end the process"
            torch.from_numpy(array).zero_()
    assert not recwarn.list, "torch warns of arrays that cannot be written"
    assert {path: path.read_bytes() for path in entry(folder).iterdir()} == files
    assert Dataset.load(folder).train.target.tolist() == [2, 3, 1]


def test_rows_are_selected_from_the_cache(folder):
    Dataset.load(folder)
    rows = Dataset.load(folder).train.select(np.array([2, 0]))
    assert rows.target.tolist() == [1, 2]
    assert [rows.history(row).tolist() for row in range(2)] == [[2, 3], [1]]


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("valid", ROWS | {"label": [0, 1, 2]}),
        ("truth", TRUTH | {"probability": [2.0] * 6}),
        ("item_feature", FEATURE | {"item_title": [1, 2, 3]}),
    ],
)
def test_a_dataset_with_an_error_is_not_cached(folder, file, change):
    write(folder, **{file: change})
    for _ in range(2):
        with pytest.raises(DataError, match=rf"{file}\.parquet"):
            Dataset.load(folder)
    assert not (folder / ".cache").exists()


def test_check_reads_the_files_and_not_the_cache(folder, monkeypatch):
    Dataset.load(folder)
    read, original = [], impressions.load_impressions

    def spy(path, *args, **named):
        read.append(path.stem)
        return original(path, *args, **named)

    monkeypatch.setattr(dataset, "load_impressions", spy)
    _, errors = check(folder)
    assert errors == []
    assert read == ["train", "valid"]


def test_the_fingerprint_is_that_of_what_was_loaded(folder):
    loaded = Dataset.load(folder)
    expected = files_fingerprint(folder)
    write(folder, train=ROWS | {"item_id": [3, 3, 3]})
    assert loaded.fingerprint == expected


def test_two_processes_may_write_at_once(folder):
    """Each begins before the other has ended, whichever ends first."""
    parts = dataset._read_parts(folder, ())
    start = threading.Barrier(2)

    def writer():
        for _ in range(20):
            start.wait()
            cache.write(folder, "same", parts)

    threads = [threading.Thread(target=writer) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found = cache.read(folder, "same")
        assert found is None or found["train"]["target"].tolist() == [2, 3, 1]
    cache.write(folder, "same", parts)
    assert entry(folder).name.startswith("same")
    assert cache.read(folder, "same")["train"]["target"].tolist() == [2, 3, 1]


def test_an_entry_made_meanwhile_is_replaced(folder, monkeypatch):
    """Another process writes, as seen from within this one's writing: nobody is disturbed."""
    parts, original = dataset._read_parts(folder, ()), cache._save

    def interrupted(path, array):
        monkeypatch.setattr(cache, "_save", original)
        cache.write(folder, "same", parts)
        original(path, array)

    monkeypatch.setattr(cache, "_save", interrupted)
    cache.write(folder, "same", parts)
    assert cache.read(folder, "same")["train"]["target"].tolist() == [2, 3, 1]
    assert entry(folder).name.startswith("same")
