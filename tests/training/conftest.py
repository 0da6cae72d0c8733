"""A dataset whose clicks are easy to learn."""

import numpy as np
import pytest

from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """Items of two kinds; a user clicks items of the kind of their only earlier click."""
    rng = np.random.default_rng(0)
    kind = np.r_[0, np.arange(60) % 2]
    content = np.zeros((61, 4), dtype=np.float32)
    content[1:] = rng.normal(0, 0.3, (60, 4)) + 2 * kind[1:, None] - 1
    splits = {}
    for name, count in (("train", 3000), ("valid", 600)):
        history, target = rng.integers(1, 61, (2, count)).astype(np.int32)
        start = np.arange(count)
        label = (kind[history] == kind[target]).astype(np.float32)
        splits[name] = Impressions(start, target, label, start, start + 1, history)
    none = np.zeros(61, dtype=np.int8)
    tags = np.zeros((61, 1), dtype=np.int32)
    catalog = Catalog(tags, none, none, np.full(61, ""), {}, content, content)
    return Dataset(tmp_path_factory.mktemp("easy"), catalog, splits)
