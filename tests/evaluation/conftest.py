"""A study of three trials."""

from types import SimpleNamespace

import pytest

from mmctr.data.dataset import Dataset
from mmctr.evaluation import search

FIXED = {"seed": 3, "epochs": 1, "validations": 2, "embedding_dim": 8, "heads": 2}
FIXED |= {"hidden": [16], "batch_size": 256, "dropout": 0.1}
FREE = ["learning_rate", "embedding_l2"]


class Untouchable:
    """A split that has rows, and fails whoever wants to see them."""

    def __len__(self):
        return 300

    def __getattr__(self, name):
        raise AssertionError(f"somebody read {name} of test")


@pytest.fixture(scope="module")
def dataset(tiny):
    """The tiny data with a test split that nobody may read."""
    return Dataset(tiny.folder, tiny.catalog, tiny.splits | {"test": Untouchable()})


def searched(dataset, folder, trials, strategy="v4", **fixed):
    """Search quietly."""
    fixed = FIXED | fixed
    return search.search(
        dataset, strategy, folder, trials=trials, fixed=fixed, say=lambda line: None
    )


@pytest.fixture(scope="module")
def study(dataset, tmp_path_factory):
    """A study of three trials; do not add to it."""
    return searched(dataset, tmp_path_factory.mktemp("runs") / "search", 3)


@pytest.fixture
def scripted(monkeypatch):
    """A function that replaces training: AUCs of each validation from the parameters."""

    def replace(aucs):
        def fit(model, _, config, on_validation):
            values = aucs(model, config)
            for number, value in enumerate(values, start=1):
                on_validation({"epoch": number / config.validations, "auc": value})
            return SimpleNamespace(best_auc=max(values))

        monkeypatch.setattr(search, "fit", fit)

    return replace


@pytest.fixture
def tried(scripted):
    """All parameters of each trial, in the order in which they are tried."""
    seen = []

    def remember(model, config):
        seen.append(model.config.model_dump() | config.model_dump())
        return [0.6, 0.7]

    scripted(remember)
    return seen
