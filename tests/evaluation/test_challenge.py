"""The challenge's table is computed by hand; its systems are presets that can be built."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from mmctr.data.impressions import Impressions
from mmctr.errors import ConfigError
from mmctr.evaluation import challenge
from mmctr.evaluation.ablation import DEFAULT
from mmctr.model.presets import PRESETS

CLICKS = np.array([0, 0, 0, 1, 4, 5, 9])  # of each item in train, padding first


@pytest.fixture
def rows():
    """600 rows of 60 users on items of every kind."""
    rng, user = np.random.default_rng(0), np.repeat(np.arange(60), 10)
    none = np.zeros(600, dtype=np.int64)
    target = rng.integers(1, 7, 600).astype(np.int32)
    label = (rng.random(600) < 0.3).astype(np.float32)
    return Impressions(user, target, label, none, none, np.zeros(0, dtype=np.int32))


def fake_run(score, seconds):
    """A run that predicts these, whose best validation was the second."""
    return SimpleNamespace(
        predictions=pd.DataFrame({"probability": score}),
        history=pd.DataFrame({"auc": [0.5, 0.7, 0.6], "seconds": [1.0, seconds, 99.0]}),
        summary={"parameters": 7, "cost": {"samples_per_s": 1000.0}},
    )


@pytest.fixture
def found(rows):
    """A good default and two others, with two runs each."""
    rng = np.random.default_rng(1)

    def score(strength):
        noise = rng.normal(size=len(rows))
        return 1 / (1 + np.exp(-strength * rows.label - noise))

    strengths = {DEFAULT: 2.0, "din": 0.2, "momo": 2.0}
    return {
        name: [fake_run(score(strength), 3.0), fake_run(score(strength), 5.0)]
        for name, strength in strengths.items()
    }


def test_the_table_has_means_over_runs(rows, found):
    scores = challenge.scores_of(found, "valid", rows)
    table = challenge.challenge_table(found, scores, rows, CLICKS).set_index("system")
    assert list(table.index) == [DEFAULT, "din", "momo"]
    own = [run.predictions["probability"] for run in found["din"]]
    expected = np.mean([roc_auc_score(rows.label, score) for score in own])
    assert table["AUC"]["din"] == pytest.approx(expected)
    assert table["logloss"]["din"] == pytest.approx(
        np.mean([log_loss(rows.label, score) for score in own])
    )
    for group, items in {"new": (1, 2), "cold": (3, 4), "warm": (5, 6)}.items():
        kept = np.isin(rows.target, items)
        auc = np.mean([roc_auc_score(rows.label[kept], score[kept]) for score in own])
        assert table[group]["din"] == pytest.approx(auc)
    assert table["seconds to its best"]["din"] == 4
    assert table["parameters"]["din"] == 7
    assert table["p_holm"]["din"] < 0.05 < table["p_holm"]["momo"]
    assert table["difference"]["din"] == pytest.approx(table["AUC"]["din"] - table["AUC"][DEFAULT])
    assert np.isnan(table["difference"][DEFAULT])


def test_the_verdict_says_who_is_ahead(rows, found):
    scores = challenge.scores_of(found, "valid", rows)
    table = challenge.challenge_table(found, scores, rows, CLICKS)
    data = SimpleNamespace(name="x", simulated=False)
    card = challenge.challenge_verdict(table, data, "test")
    facts = dict(card.facts)
    assert facts["data"] == "test of x (real)"
    assert facts["ahead of"].startswith("din (+0.")
    assert facts["could be chance"].startswith("momo (")
    assert card.headline.startswith("The default is not shown to differ from momo (")
    assert not card.clear
    behind = table.assign(difference=-table["difference"])
    card = challenge.challenge_verdict(behind, data, "test")
    assert card.headline.startswith("The default is behind din (-0.")
    assert card.clear
    card = challenge.challenge_verdict(table[table["system"] != "momo"], data, "test")
    assert card.headline == "The default is ahead of every other system"
    card = challenge.challenge_verdict(table.iloc[:1], data, "test")
    assert card.headline == "Only the default was trained"


def test_test_is_judged_where_its_labels_are_known(tiny):
    assert challenge.judged(tiny)[0] == "test"
    hidden = replace(tiny.split("test"), label=None)
    for splits in ({**tiny.splits, "test": hidden}, {"valid": tiny.valid}):
        name, rows = challenge.judged(replace(tiny, splits={"train": tiny.train} | splits))
        assert (name, rows) == ("valid", tiny.valid)


@pytest.mark.parametrize(("device", "sizes"), [("cuda", challenge.LARGE), ("cpu", challenge.SMALL)])
def test_systems_suit_the_machine(monkeypatch, device, sizes):
    monkeypatch.setattr(challenge, "find_device", lambda wanted: SimpleNamespace(type=device))
    assert challenge.systems() == [DEFAULT, "paper", "din", "vq", *sizes]


def test_systems_are_presets_and_the_default_is_always_there():
    assert set(challenge.SYSTEMS) <= set(PRESETS)
    assert challenge.systems(["momo"]) == [DEFAULT, "momo"]
    with pytest.raises(ConfigError, match="System 'fm' is unknown: choose of default, paper"):
        challenge.systems(["fm"])


def test_the_item_embedding_is_what_the_data_have(tiny):
    assert challenge.default_strategy(tiny) == "v4"
    text = replace(tiny.catalog, image_features=None)
    assert challenge.default_strategy(replace(tiny, catalog=text)) == "v1"
    nothing = replace(text, text_features=None)
    assert challenge.default_strategy(replace(tiny, catalog=nothing)) == "ids"


def test_an_estimate_names_every_system(tiny):
    small = {"embedding_dim": 8, "hidden": (8,), "max_history": 3, "batch_size": 64}
    table = challenge.estimate(tiny, "ids", ["vq"], **small)
    assert table["system"].tolist() == [DEFAULT, "vq"]
    assert (table["seconds"] > 0).all()


def test_an_estimate_in_words():
    table = pd.DataFrame({"system": [DEFAULT, "qin"], "seconds": [30.0, 7000.0]})
    words = challenge.estimate_in_words(table, 2)
    assert words.startswith("Training takes up to 4 hours on this machine, for all epochs of 4 ")
    assert "(a seed of each: default 30 seconds and qin 117 minutes)" in words


def test_systems_that_read_codes_have_their_own_strategy(tiny, monkeypatch):
    monkeypatch.setattr(challenge, "trained", lambda dataset, changes, *_, **__: changes)
    found = challenge.compete(tiny, [1], None, "v1", ["vq", "din"])
    assert {name: change["strategy"] for name, change in found.items()} == {
        DEFAULT: "v1",
        "din": "v1",
        "vq": "v6",
    }


def test_published_figures_have_a_source():
    assert challenge.PUBLISHED["source"].str.len().gt(5).all()
    assert {"paper", "din", "vq", *challenge.LARGE} <= set(challenge.PUBLISHED["system"])
