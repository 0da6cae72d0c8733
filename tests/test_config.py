"""Configurations turn wrong values into one sentence."""

from typing import Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from mmctr.config import Config, as_pairs, parse_pairs
from mmctr.errors import ConfigError


class Example(Config):
    """A configuration with one field of each kind."""

    rate: float = Field(0.1, gt=0)
    kind: Literal["a", "b"] = "a"
    size: Literal["small", "large"] | None = None
    name: str | None = None
    widths: tuple[int, ...] = Field((1,), min_length=1)
    mixing: Literal["all", "off"] | None = None

    @model_validator(mode="after")
    def _b_needs_a_name(self):
        if self.kind == "b" and self.name is None:
            raise ValueError("Kind b needs a name: give one.")
        return self


def test_of_takes_values_and_keeps_defaults():
    config = Example.of(rate=2, size="small")
    assert config.model_dump() == {
        "rate": 2.0,
        "kind": "a",
        "size": "small",
        "name": None,
        "widths": (1,),
        "mixing": None,
    }


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError):
        Example.of().rate = 3.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 0}, "Parameter 'rate' is 0, expected greater than 0."),
        ({"kind": "c"}, "Parameter 'kind' is 'c', expected one of 'a', 'b'."),
        ({"widths": ()}, "Parameter 'widths' is (), expected at least 1 item"),
        ({"widths": (1, "x")}, "Parameter 'widths' is 'x', expected a valid integer"),
        ({"name": 5}, "Parameter 'name' is 5, expected a valid string."),
        ({"colour": 1}, "Parameter 'colour' is unknown: choose one of rate, kind, size, name"),
        ({"kind": "b"}, "Kind b needs a name: give one."),
    ],
)
def test_the_first_wrong_value_is_named(values, message):
    with pytest.raises(ConfigError) as error:
        Example.of(**values)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_optional_choice_names_its_values():
    assert Example.of(size=None).size is None
    with pytest.raises(ConfigError, match=r"'size' is 'big', expected one of 'small', 'large'"):
        Example.of(size="big")


def test_a_choice_is_off_where_yaml_read_a_boolean():
    assert Example.of(mixing=False).mixing == "off"
    with pytest.raises(ConfigError, match=r"'kind' is False, expected one of 'a', 'b'"):
        Example.of(kind=False)
    with pytest.raises(ConfigError, match=r"'mixing' is True, expected one of 'all', 'off'"):
        Example.of(mixing=True)


def test_pairs_are_read_back_as_they_were_written():
    values = {"heads": 2, "hidden": [8, 4], "senet": False, "bilinear": "off", "content_dim": None}
    assert as_pairs(values)[:3] == ["heads=2", "hidden=[8,4]", "senet=false"]
    assert parse_pairs(as_pairs(values)) == values
