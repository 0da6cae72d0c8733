"""Presets and changes make the configurations of model and training."""

import pytest

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
