"""Values of the model that cannot be used."""

import pytest

from mmctr.errors import ConfigError
from mmctr.model.config import DINConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"content": "fixed"}, "'content' is 'fixed', .*'projected', 'frozen', 'finetuned'"),
        ({"attention": "softmax"}, "'attention' is 'softmax', expected one of 'dot', 'mlp'"),
        ({"bilinear": None}, "'bilinear' is None, .*'all', 'each', 'interaction', 'off'"),
        ({"heads": 0}, "'heads' is 0, expected greater than or equal to 1"),
        ({"heads": "many"}, "'heads' is 'many', expected a valid integer"),
        ({"embedding_dim": 1.5}, "'embedding_dim' is 1.5, expected a valid integer"),
        ({"cross_layers": 9}, "'cross_layers' is 9, expected less than or equal to 8"),
        ({"cross_layers": -1}, "'cross_layers' is -1, expected greater than or equal to 0"),
        ({"dropout": 1.0}, "'dropout' is 1.0, expected less than 1"),
        ({"attention_dropout": float("nan")}, "'attention_dropout' is nan, expected less than 1"),
        ({"hidden": ()}, "'bilinear' is 'all' and 'hidden' is empty, .*: set bilinear='off'"),
        (
            {"hidden": (), "bilinear": "off", "cross_layers": 0},
            "'hidden', 'cross_layers' and 'quadratic_layers' switch everything off .*: leave one",
        ),
        ({"attention_hidden": ()}, "'attention_hidden' is .., expected at least 1 item"),
        ({"hidden": (8, -1)}, "'hidden' is -1, expected greater than 0"),
        ({"senet": "maybe"}, "'senet' is 'maybe', expected a valid boolean"),
        ({"depth": 3}, "'depth' is unknown: choose one of embedding_dim, content, content_dim"),
    ],
)
def test_wrong_values_are_refused_in_one_sentence(values, message):
    with pytest.raises(ConfigError, match=message) as error:
        DINConfig.of(**values)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_what_a_run_from_before_does_not_name_is_as_it_was_then():
    assert DINConfig.stated({}).identity_dropout == 0 < DINConfig().identity_dropout
    assert DINConfig.stated({"identity_dropout": 0.1, "heads": 2}) == DINConfig(
        identity_dropout=0.1, heads=2
    )
    with pytest.raises(ConfigError, match="'heads' is 0"):
        DINConfig.stated({"heads": 0})
