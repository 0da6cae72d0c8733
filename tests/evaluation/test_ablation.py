"""The ablation changes one thing at a time, and its table is computed by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mmctr.data.fields import Field
from mmctr.evaluation.ablation import DEFAULT, ablation_table, ablation_verdict, variations
from mmctr.training.config import configs


def test_every_variation_differs_from_the_default_and_can_be_built(tiny):
    default = configs()
    seen = [(default, "v4")]
    for name, change in variations(tiny).items():
        change = dict(change)
        strategy = change.pop("strategy", "v4")
        found = configs(**change)
        if name != DEFAULT:
            assert (found, strategy) not in seen, name
            seen.append((found, strategy))


def test_switches_are_flipped_one_at_a_time(tiny):
    default = configs()
    default = default[0].model_dump() | default[1].model_dump()
    for name, change in variations(tiny).items():
        if name.startswith(("with ", "without ")):
            model, training = configs(**change)
            found = model.model_dump() | training.model_dump()
            differing = {key for key in found if found[key] != default[key]}
            assert len(differing) == 1
            (key,) = differing
            is_off = found[key] in (False, "off", 0)
            assert is_off == name.startswith("without"), name


@pytest.mark.parametrize(
    ("owner", "name", "switch"),
    [
        ("item", "without item fields", "item_fields"),
        ("user", "without user fields", "user_fields"),
        ("context", "without context", "context"),
    ],
)
def test_fields_can_be_left_out_where_there_are_any(tiny, owner, name, switch):
    field = Field("f", owner, values=("a",))
    catalog = replace(tiny.catalog, fields=(field,) if owner == "item" else ())
    data = replace(tiny, catalog=catalog, row_fields=() if owner == "item" else (field,))
    more = {key: value for key, value in variations(data).items() if key not in variations(tiny)}
    assert more == {name: {switch: False}}


def fake_run(label, score):
    """A run with given scores of valid rows."""
    return SimpleNamespace(
        predictions=pd.DataFrame({"probability": score}),
        summary={
            "metrics": {"auc": roc_auc_score(label, score)},
            "seconds": {"training": 2.0},
            "parameters": 7,
        },
    )


@pytest.fixture
def rows():
    """600 valid rows of 60 users."""
    rng = np.random.default_rng(0)
    label = (rng.random(600) < 0.3).astype(np.float32)
    return SimpleNamespace(user=np.repeat(np.arange(60), 10), label=label)


def test_differences_are_means_over_seeds(rows):
    rng = np.random.default_rng(1)
    noise = [rng.normal(size=600) for _ in range(4)]
    default = [rows.label + noise[0], rows.label + noise[1]]
    worse = [0.2 * rows.label + noise[2], 0.2 * rows.label + noise[3]]
    found = {
        DEFAULT: [fake_run(rows.label, score) for score in default],
        "worse": [fake_run(rows.label, score) for score in worse],
        "same": [fake_run(rows.label, score) for score in default],
    }
    table = ablation_table(found, rows).set_index("variation")
    auc = {
        name: np.mean([roc_auc_score(rows.label, score) for score in scores])
        for name, scores in (("default", default), ("worse", worse))
    }
    assert table["difference"]["worse"] == pytest.approx(auc["worse"] - auc["default"])
    assert table["low"]["worse"] < table["difference"]["worse"] < table["high"]["worse"] < 0
    assert table["difference"]["same"] == table["low"]["same"] == table["high"]["same"] == 0
    assert table["p_holm"]["worse"] < 0.05 < table["p_holm"]["same"]
    assert np.isnan(table["difference"][DEFAULT])
    dataset = SimpleNamespace(name="clicks", simulated=False)
    card = ablation_verdict(table.reset_index(), dataset)
    assert card.headline == "No change is shown to be better than the default"
    facts = dict(card.facts)
    assert not card.clear and facts["better"] == "none by more than chance"
    assert facts["worse"] == f"worse ({table['difference']['worse']:+.4f})"
    assert facts["not shown to differ"] == "1 of 2 changes"


def test_a_card_of_many_changes_names_the_largest():
    differences = [np.nan, -0.01, 0.02, -0.03, -0.04, -0.05, -0.06, 0.03, 0.5]
    table = pd.DataFrame({"variation": [DEFAULT, *"abcdefgh"], "difference": differences})
    table = table.assign(AUC=0.7, p_holm=[np.nan, *[0.01] * 7, 0.2])
    card = ablation_verdict(table, SimpleNamespace(name="clicks", simulated=True))
    assert (card.headline, card.clear) == ("Better than the default: g (+0.0300)", True)
    facts = dict(card.facts)
    assert facts["better"] == "g (+0.0300), b (+0.0200)"
    assert facts["worse"] == "f (-0.0600), e (-0.0500), d (-0.0400), c (-0.0300) and 1 more"
    assert "a (-0.0100)" in card.details
    assert facts["not shown to differ"] == "1 of 8 changes"
    assert "nothing about real clicks" in facts["data"]


def test_a_clear_difference_is_shown_however_many_changes_there_are(rows, tiny):
    rng = np.random.default_rng(2)
    found = {
        name: [fake_run(rows.label, (name == DEFAULT) * 2 * rows.label + rng.normal(size=600))]
        for name in variations(tiny)
    }
    table = ablation_table(found, rows)
    assert (table["high"][1:] < 0).all()
    assert (table["p_holm"][1:] < 0.05).all()
