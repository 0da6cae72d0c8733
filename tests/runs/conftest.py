"""Runs to be written, and trainings to be interrupted."""

from dataclasses import replace

import numpy as np
import pytest

from mmctr.data.catalog import FEATURES
from mmctr.data.dataset import Dataset
from mmctr.data.schema import LEVEL_COLUMNS
from mmctr.runs import writing
from mmctr.runs.train import train
from mmctr.training.config import configs


@pytest.fixture(scope="session")
def named_run(tmp_path_factory, named):
    """A small run on the dataset whose items and users have own ids."""
    small = configs(epochs=1, embedding_dim=8, heads=2, hidden=(16,), batch_size=256)
    return train(named, "v4", *small, tmp_path_factory.mktemp("runs"))


def with_other_ids(dataset):
    """The same files but for item_ids.parquet, in which two items have changed places."""
    ids = dataset.catalog.ids.copy()
    ids[[1, 2]] = ids[[2, 1]]
    other = Dataset(dataset.folder, replace(dataset.catalog, own_ids=ids), dataset.splits)
    vars(other)["fingerprint"] = dataset.fingerprint
    return other


@pytest.fixture
def save(tiny, tiny_run, tmp_path):
    """Save the tiny run again below tmp_path/runs, with another strategy if wanted."""

    def saved(strategy="v4"):
        config = tiny_run.config | {"strategy": strategy}
        summary = {name: tiny_run.summary[name] for name in ("metrics", "seconds")}
        scores = tiny_run.predictions["probability"].to_numpy()
        records = tiny_run.history.to_dict("records")
        runs = tmp_path / "runs"
        return writing.save_run(runs, tiny, tiny_run.model(), config, summary, records, scores)

    return saved


def renumbered(dataset, items, tags=None):
    """A dataset of these items alone, in this order, by old number; rows of others are gone.

    tags: the old number of each new tag, from 1 on; the old ones if not given.
    """
    old, catalog = np.array([0, *items]), dataset.catalog
    new = np.zeros(catalog.n_items + 1, dtype=np.int32)
    new[old] = np.arange(len(old))
    known = {number: place for place, number in enumerate(items, start=1)}
    arrays = {
        name: getattr(catalog, name)[old]
        for name in (*LEVEL_COLUMNS, *FEATURES, "tags", "titles", "field_codes")
        if getattr(catalog, name) is not None
    }
    names = catalog.tag_names
    if tags is not None:
        number = np.zeros(int(catalog.tags.max()) + 1, dtype=np.int32)
        number[tags] = np.arange(1, len(tags) + 1)
        arrays["tags"] = number[arrays["tags"]]
        names = {new: catalog.tag_name(one) for new, one in enumerate(tags, start=1)}
    arrays |= {"own_ids": catalog.ids[old], "tag_names": names, "covers": {}}
    splits = {}
    for name, rows in dataset.splits.items():
        rows = rows.select(np.flatnonzero(new[rows.target]))
        clicks = [
            [known[item] for item in rows.history(row).tolist() if item in known]
            for row in range(len(rows))
        ]
        ends = np.cumsum([len(one) for one in clicks])
        splits[name] = replace(
            rows,
            target=new[rows.target],
            history_start=ends - [len(one) for one in clicks],
            history_end=ends,
            history_items=np.array([item for one in clicks for item in one], dtype=np.int32),
        )
    made = Dataset(dataset.folder, replace(catalog, **arrays), splits, dataset.row_fields)
    vars(made)["fingerprint"] = f"{hash((tuple(items), tuple(tags or ()))):x}"
    return made
