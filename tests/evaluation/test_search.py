"""A search goes on where it was, keeps what is fixed, and looks at train and valid alone."""

import shlex
import sys

import pandas as pd
import pytest

from mmctr.config import parse_pairs
from mmctr.data.dataset import Dataset
from mmctr.errors import ConfigError, DataError, MMCTRError, RunError
from mmctr.evaluation import search, study
from mmctr.evaluation.study import Study
from mmctr.files import alone
from mmctr.runs.train import train
from mmctr.training.config import configs
from tests.evaluation.conftest import FIXED, FREE, searched


def without_seconds(study):
    return study.trials.drop(columns="seconds")


def test_trials_are_what_training_gives(study, dataset, tmp_path):
    table = study.trials
    assert table["trial"].tolist() == [1, 2, 3]
    assert set(table["state"]) == {"finished"}
    assert study.best_auc == table["auc"].max() == table["best"].iloc[-1]
    assert table["best"].tolist() == [table["auc"][: n + 1].max() for n in range(3)]
    words = [word for word in shlex.split(study.pairs) if word != "-p"]
    runs = {"best": parse_pairs(words) | {"seed": 3}, "defaults": FIXED}
    found = {
        name: train(dataset, "v4", *configs(**values), tmp_path).summary["metrics"]["auc"]
        for name, values in runs.items()
    }
    assert found == pytest.approx({"best": study.best_auc, "defaults": study.default_auc})
    _, defaults = configs()
    assert table.loc[0, FREE].tolist() == [defaults.learning_rate, defaults.embedding_l2]
    assert study.best_number == table["trial"][table["auc"].idxmax()]


def test_a_larger_number_of_trials_adds_to_what_is_there(study, dataset, tmp_path):
    first = searched(dataset, tmp_path / "s", 2)
    kept = first.trials
    again = searched(dataset, tmp_path / "s", 2)
    assert again.trials.equals(kept), "two trials are there already"
    more = searched(dataset, tmp_path / "s", 3)
    assert more.trials[:2].equals(kept), "seconds and all: they were not trained again"
    assert without_seconds(more).equals(without_seconds(study)), "as if it had not stopped"


def test_a_killed_trial_is_trained_again(study, dataset, tmp_path, monkeypatch):
    folder = tmp_path / "s"

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "fit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            searched(dataset, folder, 3)
    assert Study.load(folder).done == 0
    searched(dataset, folder, 1)
    Study.load(folder).optuna.ask()  # what a process that was killed leaves: a running trial
    found = searched(dataset, folder, 3)
    assert without_seconds(found).equals(without_seconds(study))
    assert found.default_auc == study.default_auc


def test_what_is_fixed_stays_fixed_and_the_rest_lies_in_the_space(dataset, tmp_path, tried):
    fixed = {"seed": 3, "epochs": 1, "dropout": 0.45, "senet": False}
    found = search.search(
        dataset, "v1", tmp_path / "s", trials=12, fixed=fixed, say=lambda line: None
    )
    assert found.free == [name for name in study.SPACE if name != "dropout"]
    assert all(fixed.items() <= values.items() for values in tried)
    table = pd.DataFrame(tried)
    for name in ("learning_rate", "embedding_l2"):
        low, high, _ = study.RANGES[name]
        assert table[name].between(low, high).all()
        assert table[name].nunique() == 12
    assert set(table["embedding_dim"]) <= {16, 32, 64}
    assert set(table["heads"]) <= {1, 2, 4, 8}
    assert set(table["batch_size"]) <= {512, 1024, 2048}
    assert set(table["hidden"]) <= {(128, 64), (256, 128), (512, 256)}
    assert found.trials["hidden"].map(tuple).tolist() == table["hidden"].tolist()
    pairs = parse_pairs([word for word in shlex.split(found.pairs) if word != "-p"])
    assert pairs["dropout"] == 0.45 and pairs["senet"] is False
    assert "seed" not in pairs, "it is to be trained with several"
    assert configs(**pairs)


def test_one_that_lags_behind_is_pruned_after_the_first_epoch(dataset, tmp_path, scripted):
    count = iter(range(100))
    # Five good trials, a bad start that recovers within the epoch, a bad one, a diverging one.
    curves = [[0.6, 0.7, 0.8, 0.8]] * 5 + [[0.4, 0.75, 0.8, 0.9], [0.6, 0.6, 0.6, 0.99]]
    trained = []

    def aucs(model, config):
        number = next(count)
        if number == len(curves):
            raise ConfigError("It has diverged.")
        trained.append(number)
        return curves[number]

    scripted(aucs)
    found = searched(dataset, tmp_path / "s", 8, epochs=2)
    assert found.trials["state"].tolist() == ["finished"] * 6 + ["pruned", "diverged"]
    assert found.best_auc == 0.9, "what pruned trials would have reached does not count"
    assert found.curves.query("trial == 7")["auc"].tolist() == [0.6, 0.6]
    assert found.trials["auc"].iloc[7:].isna().all()
    assert found.best_number == 6
    assert found.done == 8


def test_the_first_trial_has_the_defaults_of_a_preset_too(dataset, tmp_path, tried):
    fixed = {"seed": 3, "preset": "din", "epochs": 1, "learning_rate": 1e-3}
    found = search.search(
        dataset, "v1", tmp_path / "s", trials=12, fixed=fixed, say=lambda line: None
    )
    model, training = configs(**fixed)
    assert tried[0] == model.model_dump() | training.model_dump()
    assert found.default_auc == 0.7
    table = pd.DataFrame(tried)
    assert set(table["hidden"]) <= {(128, 64), (256, 128), (512, 256), (1024, 512, 256)}
    assert table["batch_size"].nunique() > 1, "and the others lie in the same space"
    pairs = parse_pairs([word for word in shlex.split(found.pairs) if word != "-p"])
    assert pairs["preset"] == "din" and configs(**pairs)[0].attention == "mlp"


def test_a_default_outside_its_range_widens_it(dataset, tmp_path, scripted, monkeypatch):
    scripted(lambda model, config: [0.6, 0.7])
    monkeypatch.setitem(study.RANGES, "learning_rate", (5e-3, 1e-2, True))
    found = searched(dataset, tmp_path / "s", 3)
    default = configs()[1].learning_rate
    assert found.trials["learning_rate"][0] == default < 5e-3
    assert found.trials["learning_rate"].between(default, 1e-2).all()


def test_at_the_end_there_is_nothing_to_prune(dataset, tmp_path, scripted):
    count = iter(range(100))
    scripted(lambda model, config: [0.6, 0.8 - next(count) / 100])
    found = searched(dataset, tmp_path / "s", 9)
    assert set(found.trials["state"]) == {"finished"}


@pytest.mark.parametrize(
    ("strategy", "fixed", "message"),
    [
        ("v1", {}, "is a study with strategy v4, not v1: choose another folder with --out"),
        ("v4", {"seed": 4}, r"is a study with parameters \{.*'seed': 3.*\}, not \{.*'seed': 4"),
        ("v9", {}, "Strategy 'v9' is unknown"),
        ("v4", {"heads": "many"}, "Parameter 'heads' is 'many', expected a valid integer"),
        ("v4", {"colour": 1}, "Parameter 'colour' is unknown"),
        ("v4", dict.fromkeys(FREE, 0.1), "Every parameter of the search is fixed: leave one of"),
        ("v4", {"device": "tpu"}, "Parameter 'device' is 'tpu'"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(study, dataset, strategy, fixed, message):
    before = study.trials
    with pytest.raises(MMCTRError, match=message) as failure:
        searched(dataset, study.folder, 4, strategy, **fixed)
    assert "\n" not in str(failure.value)
    assert Study.load(study.folder).trials.equals(before)


def test_other_data_are_another_study(study, dataset, monkeypatch):
    other = Dataset(dataset.folder, dataset.catalog, dataset.splits)
    vars(other)["fingerprint"] = "another"
    with pytest.raises(RunError, match=r"is a study with dataset \w+, not another"):
        searched(other, study.folder, 4)


def test_one_label_only_is_refused(dataset, tmp_path):
    rows = dataset.valid.select(dataset.valid.label == 1)
    one_sided = Dataset(dataset.folder, dataset.catalog, dataset.splits | {"valid": rows})
    with pytest.raises(DataError, match="split valid: found only labels 1"):
        searched(one_sided, tmp_path / "s", 1)
    assert not (tmp_path / "s").exists()


def test_one_process_at_a_time(study, dataset):
    with (
        alone(study.folder),
        pytest.raises(MMCTRError, match="is being searched by another process"),
    ):
        searched(dataset, study.folder, 4)


def test_without_optuna_there_is_a_sentence_that_says_how_to_get_it(
    study, dataset, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match="needs Optuna, which is not installed: run python -m"):
        searched(dataset, tmp_path / "s", 1)
    with pytest.raises(ConfigError, match="needs Optuna"):
        Study.load(study.folder)
    assert not (tmp_path / "s").exists()
