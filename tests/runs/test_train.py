"""A training ends as a run: the same for the same seed, in one sentence for wrong parameters."""

import numpy as np
import pytest
import torch

from mmctr.errors import ConfigError
from mmctr.runs.train import train
from mmctr.training.config import configs
from tests.training.test_trainer import SMALL


@pytest.fixture
def threads(request):
    """torch with as many threads as the parameter says."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("attention", "bilinear", "threads"),
    [("dot", "all", 1), ("dot", "interaction", 2), ("mlp", "all", 2)],
    indirect=["threads"],
)
def test_two_runs_with_one_seed_are_identical(tiny, tmp_path, attention, bilinear):
    parameters = SMALL | {"attention": attention, "bilinear": bilinear, "epochs": 1}
    first, second, other = (
        train(tiny, "v4", *configs(**parameters, seed=seed), tmp_path) for seed in (1, 1, 2)
    )
    assert first.summary["metrics"] == second.summary["metrics"]
    assert first.summary["metrics"] != other.summary["metrics"]
    weights, again, others = (run.model().state_dict() for run in (first, second, other))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not torch.equal(weights["embedding.id.weight"], others["embedding.id.weight"])


def test_global_random_numbers_do_not_matter(tiny, tmp_path):
    small = configs(**SMALL | {"epochs": 1, "embedding_dim": 4, "heads": 1, "hidden": (4,)})
    runs = []
    for seed in (5, 6):
        np.random.seed(seed)
        torch.manual_seed(seed)
        runs.append(train(tiny, "provided:item_emb_d128", *small, tmp_path))
    assert runs[0].summary["metrics"] == runs[1].summary["metrics"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"device": "tpu"}, "Parameter 'device' is 'tpu', expected one of 'auto', 'cpu'"),
        ({"device": "mps"}, "which this machine does not have: choose one of 'cpu'"),
        ({"colour": 1}, "Parameter 'colour' is unknown: choose one of embedding_dim"),
        ({"epochs": 0}, "Parameter 'epochs' is 0, expected greater than 0"),
        ({"patience": 1.5}, "Parameter 'patience' is 1.5, expected a valid integer"),
        ({"learning_rate": "fast"}, "Parameter 'learning_rate' is 'fast', expected a valid number"),
    ],
)
def test_wrong_parameters_are_one_sentence(tiny, tmp_path, monkeypatch, parameters, message):
    monkeypatch.setattr(torch.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        train(tiny, "v4", *configs(**parameters), tmp_path)
    assert not list(tmp_path.iterdir())
