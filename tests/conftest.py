"""Fixtures that several test modules share."""

import pytest

from mmctr.data.dataset import Dataset
from mmctr.data.demo import write_demo


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A small demo dataset on disk; do not write into it."""
    return write_demo(tmp_path_factory.mktemp("data") / "tiny", seed=1, items=300, users=240)


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    """The small demo dataset, loaded."""
    return Dataset.load(tiny_folder)
