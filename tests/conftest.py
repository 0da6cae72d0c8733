"""Fixtures that several test modules share."""

import pytest
from hypothesis import settings

from mmctr.data.dataset import Dataset
from mmctr.data.demo import write_demo
from mmctr.report import make_report
from mmctr.training.trainer import configs, train

# A deadline would make slow machines fail: speed is measured in benchmarks, not in tests.
settings.register_profile("mmctr", deadline=None, max_examples=60)
settings.load_profile("mmctr")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A small demo dataset on disk; do not write into it."""
    return write_demo(tmp_path_factory.mktemp("data") / "tiny", seed=1, items=300, users=240)


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    """The small demo dataset, loaded."""
    return Dataset.load(tiny_folder)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny):
    """A small model trained on the small dataset for one epoch with strategy v4."""
    small = configs(epochs=1, embedding_dim=8, heads=2, hidden=(16,), batch_size=256)
    return train(tiny, "v4", *small, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def tiny_report(tmp_path_factory, tiny_folder):
    """The real notebooks as a report on the tiny dataset: two strategies, one seed."""
    home = tmp_path_factory.mktemp("report_home")
    quick = {"epochs": 1, "embedding_dim": 8, "heads": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCTR_HOME", str(home))
        return make_report(tiny_folder, ["v1", "v4"], [1], home / "reports", parameters=quick)
