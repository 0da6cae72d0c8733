"""Training learns, repeats itself, stops early, and ends with the best weights."""

import numpy as np
import pytest
import torch

from mmctr.data.dataset import Catalog, Dataset, Impressions
from mmctr.errors import ConfigError, DataError
from mmctr.model.din import DIN
from mmctr.training import trainer
from mmctr.training.metrics import auc
from mmctr.training.prediction import predict
from mmctr.training.trainer import configs, fit, reference_aucs, train

SMALL = {"embedding_dim": 8, "heads": 2, "hidden": (16,), "batch_size": 256}


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


def model_for(dataset, **parameters):
    """A fresh model on the catalog's own text features, and its training parameters."""
    model_config, train_config = configs(**SMALL | parameters)
    torch.manual_seed(train_config.seed)
    return DIN.for_catalog(model_config, dataset.catalog, dataset.catalog.text_features), (
        train_config
    )


@pytest.mark.parametrize("attention", ["dot", "mlp"])
def test_training_learns_what_can_be_learned(easy, attention):
    model, config = model_for(easy, attention=attention, epochs=4, embedding_l2=1e-5)
    assert reference_aucs(easy, easy.valid)["popularity"] == pytest.approx(0.5, abs=0.06)
    records = fit(model, easy, config)
    assert max(record["auc"] for record in records) > 0.97


@pytest.mark.parametrize("attention", ["dot", "mlp"])
@pytest.mark.parametrize("bilinear", ["all", "interaction"])
def test_two_runs_with_one_seed_are_identical(tiny, tmp_path, attention, bilinear):
    parameters = SMALL | {"attention": attention, "bilinear": bilinear, "epochs": 1}
    first, second, other = (
        train(tiny, "v4", *configs(**parameters, seed=seed), tmp_path) for seed in (1, 1, 2)
    )
    assert first.summary["metrics"] == second.summary["metrics"]
    assert first.summary["metrics"] != other.summary["metrics"]
    weights = first.model().state_dict(), second.model().state_dict()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_best_weights_are_kept(easy, monkeypatch):
    scores = iter([0.6, 0.9, 0.7, 0.8])
    kept = []
    monkeypatch.setattr(trainer, "auc", lambda *_: next(scores))

    def remember(model, rows):
        kept.append(model.output.weight.detach().clone())
        return predict(model, rows)

    monkeypatch.setattr(trainer, "predict", remember)
    model, config = model_for(easy, epochs=1, validations=4)
    records = fit(model, easy, config)
    assert [record["auc"] for record in records] == [0.6, 0.9, 0.7, 0.8]
    assert torch.equal(model.output.weight, kept[1])


def test_training_stops_early_and_cuts_the_rate_before(easy, monkeypatch):
    scores = iter([0.9, *np.linspace(0.8, 0.7, 30)])
    monkeypatch.setattr(trainer, "auc", lambda *_: next(scores))
    model, config = model_for(easy, epochs=9, validations=2, patience=6, learning_rate=3e-3)
    records = fit(model, easy, config)
    assert len(records) == 1 + 6
    rates = [record["learning_rate"] for record in records]
    assert rates[0] == pytest.approx(3e-3)
    assert rates[-1] == pytest.approx(1e-3)


@pytest.mark.parametrize(("validations", "expected"), [(1, 1), (3, 3), (500, 12)])
def test_valid_is_scored_several_times_within_an_epoch(easy, validations, expected):
    model, config = model_for(easy, epochs=1, validations=validations, patience=1000)
    records = fit(model, easy, config)
    assert len(records) == expected  # 3,000 rows in batches of 256 are 12 steps
    assert records[-1]["epoch"] == 1.0
    probability = predict(model, easy.valid)
    best = max(record["auc"] for record in records)
    assert auc(easy.valid.label, probability) == pytest.approx(best)


def test_regularisation_shrinks_and_clipping_limits(easy):
    def trained(**parameters):
        model, config = model_for(easy, epochs=1, **parameters)
        before = {name: value.clone() for name, value in model.named_parameters()}
        fit(model, easy, config)
        return before, dict(model.named_parameters())

    plain = trained(embedding_l2=0)[1]
    assert trained(embedding_l2=1.0)[1]["embedding.id.weight"].norm() < (
        plain["embedding.id.weight"].norm()
    )
    assert trained(network_l2=1.0)[1]["output.weight"].norm() < plain["output.weight"].norm()
    # Adam forgets the gradient's scale, so a clip shows only where it meets epsilon.
    before, after = trained(max_gradient_norm=1e-9, embedding_l2=0)
    moved = (after["output.weight"] - before["output.weight"]).abs().max()
    assert moved < (plain["output.weight"] - before["output.weight"]).abs().max() / 2


def test_frozen_content_stays_and_finetuned_content_moves(easy):
    for content, moves in (("projected", False), ("frozen", False), ("finetuned", True)):
        switches = {"senet": False, "bilinear": "off"}
        model, config = model_for(easy, content=content, epochs=1, **switches)
        fit(model, easy, config)
        same = torch.equal(
            model.embedding.content.detach(), torch.from_numpy(easy.catalog.text_features)
        )
        assert same != moves, content


def test_one_label_only_is_refused(easy, tmp_path):
    rows = easy.valid
    ones = Impressions(**(vars(rows) | {"label": np.ones_like(rows.label)}))
    dataset = Dataset(easy.folder, easy.catalog, easy.splits | {"valid": ones})
    with pytest.raises(DataError, match="split valid: found only labels 1"):
        train(dataset, "v1", *configs(), tmp_path)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"device": "tpu"}, "Parameter 'device' is 'tpu', expected one of 'auto', 'cpu'"),
        ({"device": "mps"}, "which this machine does not have: choose one of 'cpu'"),
        ({"colour": 1}, "Parameter 'colour' is unknown: choose one of embedding_dim"),
        ({"epochs": 0}, "Parameter 'epochs' is 0, expected greater than 0"),
    ],
)
def test_wrong_parameters_are_one_sentence(tiny, tmp_path, parameters, message):
    with pytest.raises(ConfigError, match=message):
        train(tiny, "v4", *configs(**parameters), tmp_path)
    assert not list(tmp_path.iterdir())
