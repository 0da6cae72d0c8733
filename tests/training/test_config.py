"""Presets and changes make the configurations of model and training."""

import json

import pytest

from mmctr.config import parse_pairs
from mmctr.errors import ConfigError
from mmctr.model.presets import PRESETS
from mmctr.training.config import changes, configs, stated


def test_a_preset_is_changed_by_what_is_given_and_none_leaves_it():
    model, training = configs("din", heads=2, dropout=None, seed=3)
    assert (model.attention, model.heads, model.dropout, training.seed) == ("mlp", 2, 0.1, 3)
    assert training.batch_size == 8192
    assert configs() == configs(preset="default")


def test_an_unknown_preset_is_one_sentence():
    with pytest.raises(ConfigError, match="'best' is unknown: choose one of default, paper, din"):
        configs(preset="best")


def test_parameters_are_sorted_into_model_and_training():
    model, training = configs(heads=2, hidden=[8, 4], epochs=7, seed=3)
    assert (model.heads, model.hidden, training.epochs, training.seed) == (2, (8, 4), 7, 3)
    assert configs() == (type(model)(), type(training)())


@pytest.mark.parametrize("given", [False, "off", "no", "false", "False", "Off"])
def test_off_is_off_however_yaml_json_and_papermill_read_it(given):
    model, _ = configs(bilinear=given)
    assert model.bilinear == "off"
    with pytest.raises(ConfigError, match=r"'attention' is .*, expected one of 'dot', 'mlp'"):
        configs(attention=given)


@pytest.mark.parametrize("given", [None, "None", "null"])
def test_nothing_leaves_a_parameter_as_it_is_however_it_is_said(given):
    assert configs(given, bilinear=given, heads=given, seed=given) == configs()


def test_a_preset_that_is_a_number_is_one_sentence():
    with pytest.raises(ConfigError, match="Preset 5 is unknown: choose one of default"):
        configs(5)


def test_the_command_line_switches_a_choice_off():
    for pair in ("bilinear=off", "bilinear=false", "bilinear=no", "bilinear=False"):
        assert configs(**parse_pairs([pair]))[0].bilinear == "off"


def as_in_a_run(preset=None, **parameters):
    """Parameters as a run's config.json has them."""
    model, training = configs(preset, **parameters)
    return stated(json.loads(json.dumps(model.model_dump() | training.model_dump())))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("given", [{}, {"heads": 3}, {"hidden": [8], "epochs": 2, "dropout": 0.3}])
def test_changes_are_arguments_that_make_the_same_configurations(preset, given):
    found = changes(as_in_a_run(preset, **given, seed=7))
    assert configs(**found) == configs(preset, **given)
    assert len(found) <= len(given) + (preset != "default")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"seed": 5}, {}),
        ({"heads": 2, "dropout": 0.3}, {"heads": 2, "dropout": 0.3}),
        ({"preset": "paper"}, {"preset": "paper"}),
        ({"preset": "paper", "heads": 1}, {"preset": "paper", "heads": 1}),
        # Of a preset that explains two parameters of five, nothing is said.
        ({"cross_layers": 2, "recency": False}, {"recency": False, "cross_layers": 2}),
    ],
)
def test_changes_by_hand(given, expected):
    assert changes(as_in_a_run(**given)) == expected


def test_a_run_of_an_earlier_version_is_as_it_was_then():
    found = changes(stated({"heads": 4, "seed": 1}))
    assert found == {"identity_dropout": 0.0}
