"""Runs to be written, and trainings to be interrupted."""

from dataclasses import replace

import pytest

from mmctr.data.dataset import Dataset
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
