"""Fixtures that several test modules share.

They import what they need: of several processes the first runs no test, but reads this file before
it starts the others.
"""

import os
import shutil
import signal

import pytest
from filelock import FileLock
from hypothesis import settings

# Tests send Ctrl-C to themselves and to what they start, which a shell's background job ignores.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A deadline would make slow machines fail: speed is measured in benchmarks, not in tests.
# The same examples every time, so that nobody's build breaks by what another wrote: new ones are
# looked for by `make soak`, and by pytest --hypothesis-profile default.
settings.register_profile("mmctr", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("mmctr")
SLOW = ("tests/browser/", "tests/notebooks/", "tests/report/", "tests/test_parallel.py")
SLOW += ("tests/training/test_prediction.py",)  # which compiles
ATTACKS = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>')


def pytest_collection_modifyitems(items):
    """What takes long comes first: nobody waits for it at the end, and its fixtures serve all."""
    items.sort(key=lambda item: not item.nodeid.startswith(SLOW))


@pytest.fixture
def one_thread():
    """Sums of floats depend on the number of threads; the processes that tests start have one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A small demo dataset on disk, its features narrow; do not write into it.

    Of wide ones the principal components take longer than all else of a small training.
    """
    from mmctr.data.demo import write_demo
    from tests.data.folders import narrow

    place = tmp_path_factory.mktemp("data") / "tiny"
    return narrow(write_demo(place, seed=1, items=300, users=240))


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    """The small demo dataset, loaded."""
    from mmctr.data.dataset import Dataset

    return Dataset.load(tiny_folder)


@pytest.fixture(scope="session")
def named(tmp_path_factory, tiny_folder):
    """The small demo dataset with ids and tags as an import names them, some of them an attack."""
    import numpy as np
    import pandas as pd

    from mmctr.data.dataset import Dataset

    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("data") / "named")
    data = Dataset.load(tiny_folder)
    users = np.unique(np.concatenate([rows.user for rows in data.splits.values()]))
    items, tags = np.arange(1, data.catalog.n_items + 1), np.unique(data.catalog.tags)[1:]
    for file, number, numbers, name, form in (
        ("item_ids", "item_id", items, "original_id", "<i>{:04}</i>"),
        ("user_ids", "user_id", users, "original_id", "<u>{:04}</u>"),
        ("tags", "tag", tags, "name", "<b>Tag {}"),
    ):
        names = [form.format(one) for one in numbers]
        pd.DataFrame({number: numbers, name: names}).to_parquet(folder / f"{file}.parquet")
    return Dataset.load(folder)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny):
    """A small model trained on the small dataset for one epoch with strategy v4."""
    from mmctr.runs.train import train
    from mmctr.training.config import configs

    small = configs(epochs=1, embedding_dim=8, heads=2, hidden=(16,), batch_size=256)
    return train(tiny, "v4", *small, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def tiny_report(tmp_path_factory, tiny_folder):
    """The real notebooks as a report on the tiny dataset: two strategies, one seed.

    Every second title is an attack: whatever shows titles must show them as text.
    """
    from mmctr.report.make import make_report

    place = tmp_path_factory.getbasetemp()
    # Of several test processes the first makes it, and the others find its pages finished.
    home = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "report_home"
    with FileLock(home.with_suffix(".lock")), pytest.MonkeyPatch.context() as patch:
        if not home.exists():
            attack(shutil.copytree(tiny_folder, home / "tiny"))
        patch.setenv("MMCTR_HOME", str(home))
        quick = {"epochs": 1, "embedding_dim": 8, "heads": 2}
        return make_report(home / "tiny", ["v1", "v4"], [1], home / "reports", parameters=quick)


def attack(data):
    """Put HTML that runs a script into titles of a dataset."""
    import pandas as pd

    features = pd.read_parquet(data / "item_feature.parquet")
    for number, title in enumerate(ATTACKS):
        features.loc[features.index % 4 == 2 * number, "item_title"] = title
    features.to_parquet(data / "item_feature.parquet")
