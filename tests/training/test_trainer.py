"""Training learns, repeats itself, stops early, and ends with the best weights."""

import copy
import functools

import numpy as np
import pytest
import torch
from tqdm.auto import tqdm

from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.errors import ConfigError, DataError
from mmctr.model.din import DIN
from mmctr.runs.train import train
from mmctr.training import trainer
from mmctr.training.config import configs
from mmctr.training.metrics import auc, reference_aucs
from mmctr.training.prediction import predict
from mmctr.training.trainer import fit

SMALL = {"embedding_dim": 8, "heads": 2, "hidden": (16,), "batch_size": 256}


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
    records = fit(model, easy, config).records
    assert max(record["auc"] for record in records) > 0.97


def test_the_seed_decides_the_order_of_rows(easy):
    """Without dropout and from the same weights, nothing else is random."""
    fresh, _ = model_for(easy, dropout=0)
    losses = []
    for seed in (1, 1, 2):
        _, config = model_for(easy, epochs=1, validations=1, seed=seed)
        (record,) = fit(copy.deepcopy(fresh), easy, config).records
        losses.append(record["train_loss"])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("hidden", [True, False])
def test_the_environment_hides_the_bar(easy, monkeypatch, capfd, hidden):
    # TQDM_DISABLE becomes tqdm's default when it is imported; what a caller gives overrules it.
    bar = functools.partial(tqdm, disable=hidden)
    monkeypatch.setattr(trainer, "tqdm", bar)
    model, config = model_for(easy, epochs=1, validations=1)
    fit(model, easy, config)
    assert ("train:" in capfd.readouterr().err) != hidden


def test_a_bar_that_ends_early_is_full_and_says_so(easy, monkeypatch, capfd):
    scores = iter([0.5, 0.6, 0.55, 0.54, 0.53])
    monkeypatch.setattr(trainer, "auc", lambda *_: next(scores))
    monkeypatch.setattr(trainer, "tqdm", functools.partial(tqdm, disable=False))
    model, config = model_for(easy, epochs=8, validations=2, patience=3)
    fit(model, easy, config)
    last = capfd.readouterr().err.strip().splitlines()[-1].split("\r")[-1]
    assert "stopped early after 2.5 of 8 epochs, best at 1.0: 100%" in last
    monkeypatch.setattr(trainer, "auc", lambda *_: 0.5)
    model, config = model_for(easy, epochs=1, validations=2, patience=3)
    fit(model, easy, config)
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "100%" in last and "early" not in last


def test_the_best_weights_are_kept(easy, monkeypatch):
    scores = iter([0.6, 0.9, 0.7, 0.8])
    kept = []
    monkeypatch.setattr(trainer, "auc", lambda *_: next(scores))

    def remember(model, rows, precision):
        kept.append(model.output.weight.detach().clone())
        return predict(model, rows)

    monkeypatch.setattr(trainer, "predict", remember)
    model, config = model_for(easy, epochs=1, validations=4)
    records = fit(model, easy, config).records
    assert [record["auc"] for record in records] == [0.6, 0.9, 0.7, 0.8]
    assert torch.equal(model.output.weight, kept[1])


def test_training_stops_early_and_cuts_the_rate_before(easy, monkeypatch):
    scores = iter([0.9, *np.linspace(0.8, 0.7, 30)])
    monkeypatch.setattr(trainer, "auc", lambda *_: next(scores))
    model, config = model_for(easy, epochs=9, validations=2, patience=6, learning_rate=3e-3)
    records = fit(model, easy, config).records
    assert len(records) == 1 + 6
    rates = [record["learning_rate"] for record in records]
    assert rates[0] == pytest.approx(3e-3)
    assert rates[-1] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], 1, 2),
        ([0.9, 0.9, 0.9, 0.9], 2, 3),  # equal is not better
        ([0.5, 0.4, 0.6, 0.5, 0.4, 0.9], 2, 5),  # a better one starts the count anew
        ([0.5, 0.4, 0.6, 0.5, 0.7, 0.6], 2, 6),
    ],
)
def test_patience_counts_validations_without_a_better_auc(
    easy, monkeypatch, scores, patience, expected
):
    coming = iter(scores)
    monkeypatch.setattr(trainer, "auc", lambda *_: next(coming))
    model, config = model_for(easy, epochs=3, validations=2, patience=patience)
    assert [record["auc"] for record in fit(model, easy, config).records] == scores[:expected]


def test_train_loss_is_the_mean_since_the_last_validation(easy, monkeypatch):
    losses = iter(torch.arange(1.0, 13))
    monkeypatch.setattr(trainer, "update", lambda *_: next(losses))
    model, config = model_for(easy, epochs=1, validations=3)
    records = fit(model, easy, config).records
    assert [record["train_loss"] for record in records] == [2.5, 6.5, 10.5]
    assert [record["epoch"] for record in records] == pytest.approx([1 / 3, 2 / 3, 1], abs=1e-4)
    assert [record["learning_rate"] for record in records] == [config.learning_rate] * 3
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(("validations", "expected"), [(1, 1), (3, 3), (500, 12)])
def test_valid_is_scored_several_times_within_an_epoch(easy, validations, expected):
    model, config = model_for(easy, epochs=1, validations=validations, patience=1000)
    records = fit(model, easy, config).records
    assert len(records) == expected  # 3,000 rows in batches of 256 are 12 steps
    assert records[-1]["epoch"] == 1.0
    probability = predict(model, easy.valid)
    best = max(record["auc"] for record in records)
    assert auc(easy.valid.label, probability) == pytest.approx(best)


def test_whoever_wants_to_know_hears_of_every_validation_and_may_stop(easy):
    heard = []
    model, config = model_for(easy, epochs=2)
    progress = fit(model, easy, config, heard.append)
    assert heard == progress.records and len(heard) == 8

    def stop(record):
        raise InterruptedError

    model, config = model_for(easy, epochs=2)
    with pytest.raises(InterruptedError):
        fit(model, easy, config, stop)


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
    shrunk = trained(network_l2=1.0, embedding_l2=0)[1]
    assert shrunk["output.weight"].norm() < plain["output.weight"].norm()
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


def test_valid_is_scored_with_the_averaged_weights(easy, monkeypatch):
    """Training goes on from the last weights, so averaging changes what is kept only."""
    kept, last = {}, {}
    for averaging in (0.0, 0.9):
        model, config = model_for(easy, averaging=averaging, epochs=2, validations=1)
        record = fit(model, easy, config).records[-1]
        kept[averaging], last[averaging] = model.learned_state(), record["train_loss"]
    assert last[0.0] == last[0.9]
    assert not torch.equal(kept[0.0]["output.weight"], kept[0.9]["output.weight"])


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_one_label_only_is_refused(easy, tmp_path, split, label):
    rows = easy.split(split)
    same = Impressions(**(vars(rows) | {"label": np.full_like(rows.label, label)}))
    dataset = Dataset(easy.folder, easy.catalog, easy.splits | {split: same})
    with pytest.raises(DataError, match=f"split {split}: found only labels {label}, expected both"):
        train(dataset, "v1", *configs(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_smallest_batches_have_enough_rows_for_batch_normalisation(easy):
    odd = easy.splits | {"train": easy.train.select(np.arange(31))}
    model, config = model_for(Dataset(easy.folder, easy.catalog, odd), epochs=1, batch_size=3)
    assert fit(model, Dataset(easy.folder, easy.catalog, odd), config).records
    with pytest.raises(ConfigError, match="'batch_size' is 2, expected greater than or equal to 3"):
        configs(batch_size=2)


@pytest.mark.parametrize("rate", [1e30, float("inf")])
def test_training_that_diverges_is_one_sentence(easy, rate):
    model, config = model_for(easy, epochs=1, learning_rate=rate)
    with pytest.raises(ConfigError, match=r"'learning_rate' is .* diverged .*: choose a smaller"):
        fit(model, easy, config)


@pytest.mark.parametrize("attention", ["dot", "mlp"])
def test_bfloat16_trains_as_well_as_float32(easy, attention):
    best = {}
    for precision in ("float32", "bfloat16"):
        model, config = model_for(
            easy, attention=attention, epochs=4, embedding_l2=1e-5, precision=precision
        )
        records = fit(model, easy, config).records
        best[precision] = max(record["auc"] for record in records)
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        assert all(np.isfinite(record["train_loss"]) for record in records)
    assert best["float32"] > 0.97
    assert best["bfloat16"] == pytest.approx(best["float32"], abs=0.01)


def test_shares_are_a_multiple_of_the_processes(tiny, monkeypatch):
    model = DIN.for_catalog(configs()[0], tiny.catalog, None)
    monkeypatch.setattr(trainer.parallel, "share", lambda: (0, 2))
    match = "'row_shards' is 3, expected 1 or a multiple of the 2 processes"
    with pytest.raises(ConfigError, match=match):
        fit(model, tiny, configs(row_shards=3)[1])


def test_every_share_has_a_row_for_every_batch(easy):
    rows = len(easy.train)
    most = rows // 4
    model, _ = model_for(easy)
    sizes = {"batch_size": -(-rows // 4), "epochs": 1}
    with pytest.raises(ConfigError, match=f"'row_shards' is {most + 1}, expected at most {most},"):
        fit(model, easy, configs(row_shards=most + 1, **sizes)[1])
    assert len(fit(model, easy, configs(row_shards=most, **sizes)[1]).records) > 0


def test_row_updates_learn_and_leave_unused_ids_alone(easy):
    content = np.zeros((90, 4), dtype=np.float32)  # 29 items that no row names
    content[:61] = easy.catalog.text_features
    none = np.zeros(90, dtype=np.int8)
    tags = np.zeros((90, 1), dtype=np.int32)
    catalog = Catalog(tags, none, none, np.full(90, ""), {}, content, content)
    dataset = Dataset(easy.folder, catalog, easy.splits)
    parameters = {"row_updates": True, "content": "finetuned", "epochs": 2, "embedding_l2": 1e-5}
    model, config = model_for(dataset, **parameters)
    before = model.embedding.id.weight.detach().clone()
    assert max(record["auc"] for record in fit(model, dataset, config).records) > 0.9
    assert torch.equal(model.embedding.id.weight[61:], before[61:])
    assert not model.embedding.content[61:].any()
    assert not (model.embedding.id.weight[1:61] == before[1:61]).all(dim=1).any()


def test_the_best_weights_are_kept_without_a_copy_of_what_is_known(easy):
    for content, learned in (("projected", False), ("finetuned", True)):
        model, _ = model_for(easy, content=content)
        state = model.learned_state()
        assert ("embedding.content" in state) == learned
        assert "embedding.item_tags" not in state
        assert {"dnn.1.running_mean", "embedding.id.weight"} < state.keys()
        model.output.weight.data.zero_()
        assert state["output.weight"].any()
