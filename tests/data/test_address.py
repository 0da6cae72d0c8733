"""Splits at an address of fsspec: the dataset is the one that lies in the folder."""

import json
import shutil
from datetime import datetime
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mmctr.data import address, schema
from mmctr.data.dataset import Dataset, check
from mmctr.data.fingerprint import files_fingerprint
from mmctr.errors import DataError
from mmctr.model.config import DINConfig
from mmctr.runs.train import train
from mmctr.training.config import TrainConfig
from tests.data.folders import in_parts, write_folder


@pytest.fixture(autouse=True)
def an_empty_store(monkeypatch):
    """Nothing is in memory:// yet, and nothing was read from it."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(address, "_hashes", {})


@pytest.fixture
def fetched(monkeypatch):
    """The names of the files that were brought over from memory://, one after another."""
    names, original = [], MemoryFileSystem.get_file

    def counted(self, path, *arguments, **options):
        names.append(path.rsplit("/", 1)[-1])
        return original(self, path, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", counted)
    return names


def say(folder, **where):
    """Let dataset.json say where splits are."""
    (folder / schema.ABOUT).write_text(json.dumps(where))


def move(folder, name, url):
    """Bring a split to an address, which dataset.json then says."""
    path = schema.find_file(folder, f"{name}.parquet")
    system, place = fsspec.core.url_to_fs(url)
    system.put(str(path), place, recursive=path.is_dir())
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    say(folder, **{name: url})


def moved(folder, url="memory://bucket/train"):
    """A small dataset whose train is in two parts at an address."""
    write_folder(folder)
    in_parts(folder, "train", [2])
    move(folder, "train", url)
    return folder


def require_equal(found, expected):
    """Two datasets have the same rows, items and fingerprint."""
    assert found.fingerprint == expected.fingerprint
    pairs = [(found.catalog, expected.catalog)]
    pairs += [(found.split(name), rows) for name, rows in expected.splits.items()]
    for own, other in pairs:
        for field, values in vars(other).items():
            if values is None or isinstance(values, np.ndarray):
                np.testing.assert_array_equal(vars(own)[field], values, field)


@pytest.mark.parametrize("store", ["memory://bucket/train", "file://{}/store", "{}/store"])
@pytest.mark.parametrize("cuts", [[700, 700, 1801], None])
def test_a_split_elsewhere_is_that_of_the_folder(tiny_folder, tmp_path, store, cuts):
    here = shutil.copytree(tiny_folder, tmp_path / "here")
    shutil.rmtree(here / ".cache", ignore_errors=True)
    if cuts:
        in_parts(here, "train", cuts)
    away = shutil.copytree(here, tmp_path / "away")
    move(away, "train", store.format(tmp_path) + ("" if cuts else ".parquet"))
    expected = Dataset.load(here)
    require_equal(Dataset.load(away), expected)
    require_equal(Dataset.load(away), expected)  # by the cache
    assert check(away)[1] == []


def test_training_on_a_split_elsewhere_gives_the_same_model(tiny_folder, tmp_path):
    away = shutil.copytree(tiny_folder, tmp_path / "away")
    move(away, "train", "memory://bucket/train.parquet")
    quick = TrainConfig(epochs=1, validations=1)
    one, other = (
        train(Dataset.load(folder), "v1", DINConfig(hidden=(8,)), quick, tmp_path / "runs")
        for folder in (tiny_folder, away)
    )
    assert one.weights_hash() == other.weights_hash()
    assert one.summary["metrics"] == other.summary["metrics"]


def test_a_split_may_be_below_the_own_home(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "data", nested=False)
    expected = Dataset.load(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    (folder / "train.parquet").rename(tmp_path / "clicks.parquet")
    say(folder, train="~/clicks.parquet")
    require_equal(Dataset.load(folder), expected)


def test_every_split_may_be_elsewhere(tmp_path):
    write_folder(tmp_path / "here", nested=False)
    away = shutil.copytree(tmp_path / "here", tmp_path / "away")
    places = {name: f"memory://bucket/{name}.parquet" for name in schema.SPLITS}
    for name, url in places.items():
        move(away, name, url)
    say(away, **places)
    require_equal(Dataset.load(away), Dataset.load(tmp_path / "here"))


def test_each_part_comes_over_once_and_is_known_then(tmp_path, fetched, monkeypatch):
    folder = moved(tmp_path)
    first = Dataset.load(folder)
    assert fetched == ["part-00000.parquet", "part-00001.parquet"]
    for _ in range(2):  # by the same process, then by one that has read nothing; from the cache
        assert Dataset.load(folder).fingerprint == first.fingerprint
        assert files_fingerprint(folder) == first.fingerprint
        monkeypatch.setattr(address, "_hashes", {})
    assert len(fetched) == 2
    # Without a sound file of hashes they are read again.
    sound = json.loads((folder / address.HASHES).read_text())
    damaged = ["[", "[]", *(json.dumps(sound | dict.fromkeys(sound, one)) for one in ("zz", 5))]
    for number, text in enumerate(damaged, start=2):
        (folder / address.HASHES).write_text(text)
        monkeypatch.setattr(address, "_hashes", {})
        assert files_fingerprint(folder) == first.fingerprint
        assert len(fetched) == 2 * number


def test_what_came_over_to_be_checked_is_cached_too(tmp_path, fetched):
    folder = moved(tmp_path)
    assert check(folder)[1] == []
    before = len(fetched)
    Dataset.load(folder)
    assert len(fetched) == before


def test_a_new_part_and_a_changed_one_are_noticed(tmp_path, fetched):
    folder = moved(tmp_path)
    first = Dataset.load(folder)
    store = fsspec.filesystem("memory")
    store.cp_file("/bucket/train/part-00001.parquet", "/bucket/train/part-00002.parquet")
    more = Dataset.load(folder)
    assert (len(first.train), len(more.train)) == (4, 6)
    assert more.fingerprint != first.fingerprint
    store.cp_file("/bucket/train/part-00000.parquet", "/bucket/train/part-00001.parquet")
    changed = Dataset.load(folder)
    np.testing.assert_array_equal(changed.train.target[2:4], first.train.target[:2])
    assert len({data.fingerprint for data in (first, more, changed)}) == 3


def test_a_split_that_changes_while_it_is_read_is_one_sentence(tmp_path, monkeypatch):
    folder, original = moved(tmp_path), MemoryFileSystem.get_file

    def meanwhile(self, path, *arguments, **options):
        if path.endswith("part-00001.parquet"):
            self.cp_file("/bucket/train/part-00001.parquet", "/bucket/train/part-00000.parquet")
        return original(self, path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get_file", meanwhile)
        with pytest.raises(DataError, match="changed while it was read: load it again"):
            Dataset.load(folder)
    assert not (folder / ".cache" / "mmctr").exists()
    assert len(Dataset.load(folder).train) == 4


def test_nothing_is_left_of_what_came_over(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(address.tempfile, "tempdir", str(tmp_path / "temporary"))
    folder = moved(tmp_path / "data")
    fsspec.filesystem("memory").pipe("/bucket/train/part-00001.parquet", b"damaged")
    with pytest.raises(DataError, match=r"memory://.*part-00001\.parquet is not a readable"):
        Dataset.load(folder)
    assert list((tmp_path / "temporary").iterdir()) == []


class Refusing(MemoryFileSystem):
    """A store that lists its files and keeps them to itself."""

    protocol, error = "refusing", PermissionError("403 Forbidden")

    def get_file(self, *arguments, **options):
        """Refuse."""
        raise self.error


class Timeless(MemoryFileSystem):
    """A store that says nothing of its files but their sizes."""

    protocol = "timeless"

    def info(self, path, **options):
        """Without the time."""
        return super().info(path) | {"created": None}

    def ls(self, path, detail=True, **options):
        """Without times."""
        return [facts | {"created": None} for facts in super().ls(path, detail=True)]


def test_an_error_of_the_store_while_a_footer_is_read_is_one_sentence(tmp_path):
    class Unranged(MemoryFileSystem):
        """A store that gives files from their beginning only."""

        protocol = "unranged"

        def open(self, path, mode="rb", **options):
            """Write, but do not read."""
            if "w" not in mode:
                raise ValueError("no range requests")
            return super().open(path, mode, **options)

        def get_file(self, path, local, **options):
            """From the beginning."""
            Path(local).write_bytes(self.store[path].getvalue())

    fsspec.register_implementation("unranged", Unranged, True)
    moved(tmp_path, "unranged://bucket/train")
    with pytest.raises(DataError, match=r"part-00000\.parquet cannot be read \(no range requests"):
        Dataset.load(tmp_path)


def refusing(folder, error):
    """Move train to a store that raises an error for each file."""
    fsspec.register_implementation("refusing", type("_", (Refusing,), {"error": error}), True)
    moved(folder, "refusing://bucket/train")


def timeless(folder):
    """Move train to a store whose files have no time."""
    fsspec.register_implementation("timeless", Timeless, True)
    moved(folder, "timeless://bucket/train")


def noted(folder):
    """Put a file beside the parts that is none."""
    moved(folder)
    fsspec.filesystem("memory").touch("/bucket/train/a.txt")


def unpacked(folder):
    """Say that train is in a store whose package is not there."""
    fsspec.register_implementation("far", "no_package.Store", True, "Install far-away to access")
    say(moved(folder), train="far://bucket/train")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (unpacked, r"far://bucket/train needs a package .* \(Install far-away to access\)"),
        (lambda folder: say(moved(folder), train="s4://b/train"), "s4://b/train cannot be read"),
        (
            lambda folder: say(moved(folder), train="memory://other/train"),
            r"memory://other/train is not there: correct its address in .*dataset\.json",
        ),
        (
            lambda folder: say(moved(folder), train="nowhere"),
            r"dataset\.json has train 'nowhere', expected a path that is there or an address",
        ),
        (lambda folder: say(moved(folder), train="a" * 5000), "has train 'a+, expected a path"),
        (lambda folder: say(moved(folder), train=7), r"dataset\.json has train 7, expected"),
        (
            lambda folder: refusing(folder, PermissionError("403 Forbidden")),
            r"part-00000\.parquet may not be read \(403 Forbidden\): give this machine the keys",
        ),
        (
            lambda folder: refusing(folder, OSError(28, "No space left on device")),
            r"part-00000\.parquet has no room in .*TMPDIR",
        ),
        (
            lambda folder: refusing(folder, TimeoutError("no answer\nfor 60 s")),
            r"part-00000\.parquet cannot be read \(no answer\): check the address",
        ),
        (
            lambda folder: refusing(folder, FileNotFoundError("part-00000.parquet")),
            r"part-00000\.parquet is not there: .* or write it anew",
        ),
        (
            lambda folder: refusing(folder, ConnectionResetError("the line was cut")),
            r"part-00000\.parquet cannot be read \(the line was cut\)",
        ),
        (timeless, "has neither a version nor a time"),
        (noted, r"a\.txt is no parquet file: keep nothing but the parts in memory://bucket/train"),
    ],
)
def test_what_may_be_wrong_with_an_address_is_one_sentence(tmp_path, spoil, sentence):
    spoil(tmp_path)
    with pytest.raises(DataError, match=sentence) as raised:
        Dataset.load(tmp_path)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / ".cache" / "mmctr").exists()


def test_versions_differ_by_any_of_the_names_that_stores_use():
    def version(**facts):
        return address.Address("x://a", None, {"type": "file", "size": 3, **facts}).version

    told = [
        version(ETag='"1"', LastModified=datetime(2026, 1, 1)),
        version(ETag='"2"', LastModified=datetime(2026, 1, 1)),
        version(LastModified=datetime(2026, 1, 1)),
        version(last_modified=datetime(2026, 1, 2)),
        version(mtime=5.0),
        version(mtime=5.0, size=4),
    ]
    assert len(set(told)) == len(told)
    # What a listing adds or leaves out does not matter where there is a hash.
    assert version(ETag='"1"') == told[0]
