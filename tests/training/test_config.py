"""Presets and changes make the configurations of model and training."""

import pytest

from mmctr.config import parse_pairs
from mmctr.errors import ConfigError
from mmctr.training.config import configs


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
