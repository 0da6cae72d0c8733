"""The benchmark plants what it says, and its finding and training run on small data."""

import numpy as np
import pytest

from benchmarks import errors
from mmctr.data.dataset import Dataset


@pytest.fixture(scope="module")
def work(tmp_path_factory, tiny_folder):
    """A copy of the small dataset with errors in a tenth of its items, and what was planted."""
    place = tmp_path_factory.mktemp("errors")
    return place / "planted", errors.plant(tiny_folder, place / "planted", 0.1, seed=2)


def test_errors_are_planted_in_a_share_of_the_items(work, tiny):
    folder, truth = work
    spoilt = Dataset.load(folder)
    items = truth[truth["what"] == "item"]
    assert 0.05 * 300 <= len(items) <= 0.15 * 300
    of = {kind: part["id"].astype(int).to_numpy() for kind, part in items.groupby("kind")}
    titles, before = spoilt.catalog.titles, tiny.catalog.titles
    assert all(title.strip() in ("", "-", "N/A") for title in titles[of["emptied"]])
    assert set(titles[of["foreign"]]) <= set(errors.FOREIGN)
    untouched = np.setdiff1d(np.arange(1, 301), np.concatenate(list(of.values())))
    assert (titles[untouched] == before[untouched]).mean() > 0.95  # but for twins of what is twice
    swapped = of["other cover"]
    originals = {tiny.catalog.covers[item].read_bytes() for item in swapped}
    assert {spoilt.catalog.covers[item].read_bytes() for item in swapped} == originals
    assert all(
        spoilt.catalog.covers[item].read_bytes() != tiny.catalog.covers[item].read_bytes()
        for item in swapped
    )


def test_scripts_are_added_to_train_alone(work, tiny):
    folder, truth = work
    spoilt = Dataset.load(folder)
    users = truth.loc[truth["what"] == "user", "id"].astype(int)
    assert set(np.unique(spoilt.train.user)) - set(np.unique(tiny.train.user)) == set(users)
    for split in ("valid", "test"):
        assert spoilt.split(split).target.tolist() == tiny.split(split).target.tolist()


def test_finding_prints_recall_and_looks_at_the_rest(tiny_folder, tmp_path, capsys):
    errors.find(tiny_folder, tmp_path)
    out = capsys.readouterr().out
    assert "should be found as" in out
    assert "of them not planted" in out
    assert (tmp_path / "tiny-not-planted.png").is_file()
