"""Base of the small configuration classes: immutable, validated, printed into every run folder."""

import json
from types import UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from mmctr.errors import ConfigError

OFF = ("off", "no", "false")


class Config(BaseModel):
    """A group of parameters; make one with `of`, which turns bad values into a sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Build from parameter values; ConfigError names the first bad one and what is allowed.

        A choice is "off" for False too: YAML reads off and no as a boolean.
        """
        for name, value in values.items():
            if str(value).lower() in OFF and "off" in _choices(cls, name):
                values[name] = "off"
        try:
            return cls(**values)
        except ValidationError as error:
            problem = error.errors()[0]
            name = str(problem["loc"][0]) if problem["loc"] else ""
            if problem["type"] == "extra_forbidden":
                known = ", ".join(cls.model_fields)
                raise ConfigError(
                    f"Parameter {name!r} is unknown: choose one of {known}."
                ) from None
            if not name:
                raise ConfigError(str(problem["ctx"]["error"])) from None
            expected = _allowed(cls, name) or _expectation(problem["msg"])
            raise ConfigError(
                f"Parameter {name!r} is {problem['input']!r}, expected {expected}."
            ) from None


def parse_pairs(pairs: list[str] | None) -> dict[str, Any]:
    """KEY=VALUE pairs, the values as JSON where they are JSON, else as text."""
    values = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"Found -p {pair!r}, expected KEY=VALUE such as -p heads=2.")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def as_pairs(values: dict[str, Any]) -> list[str]:
    """Parameters as KEY=VALUE, each as `parse_pairs` reads it back."""
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
        for name, value in values.items()
    ]


def in_words(*classes: type[Config]) -> str:
    """Every parameter with its default, and what else a choice allows: what -p takes."""
    words = []
    for cls in classes:
        for name, field in cls.model_fields.items():
            default = field.default
            text = default if isinstance(default, str) else json.dumps(default)
            allowed = _allowed(cls, name).replace("'", "").removeprefix("one of ")
            words.append(f"{name}={text}" + (f" ({allowed})" if allowed else ""))
    return "; ".join(words)


def _allowed(cls: type[Config], name: str) -> str:
    """The values that a choice allows, in words; empty if the field is not a choice."""
    choices = _choices(cls, name)
    return f"one of {', '.join(map(repr, choices))}" if choices else ""


def _choices(cls: type[Config], name: str) -> list[Any]:
    """The values that a choice allows; none if there is no such field, or it is not a choice."""
    if name not in cls.model_fields:
        return []
    kind = cls.model_fields[name].annotation
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [value for part in kinds if get_origin(part) is Literal for value in get_args(part)]


def _expectation(message: str) -> str:
    """What pydantic expected: the end of "Input should be ..." or "Tuple should have ..."."""
    return message.split(" should ", 1)[-1].removeprefix("be ").removeprefix("have ")
