"""What the project itself reads of a run's files, checked: everything else is kept as it is."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from mmctr.data import parquet, schema
from mmctr.data.erroneous import Exclusion
from mmctr.data.fields import Field as KnownField
from mmctr.data.fields import fields_of
from mmctr.errors import DataError, RunError, first_line
from mmctr.model.pretrained import Sizes, Whole

SUMMARY = "summary.json"
HISTORY, PREDICTIONS = "metrics.jsonl", "predictions.parquet"
# JSON has no NaN: a measure that could not be taken is written as null.
Measure = Annotated[float, BeforeValidator(lambda value: np.nan if value is None else value)]


class _Group(BaseModel):
    """What the project itself reads of a JSON file; everything else is kept as it is."""

    model_config = ConfigDict(strict=True, extra="allow")


RECORD = ("epoch", "train_loss", "auc", "logloss", "learning_rate", "seconds")
_form = partial(create_model, __base__=_Group)
_Training = _form("_Training", seed=(Whole, ...))
_Seconds = _form("_Seconds", fusion=(Measure, ...), training=(Measure, ...))
_Cost = _form("_Cost", samples_per_s=(Measure, np.nan), peak_memory_mb=(Measure, np.nan))
_Learned = _form("_Learned", rows=(Whole, ...), of=(Whole, ...))
_Record = _form("_Record", **dict.fromkeys(RECORD, (Measure, ...)))


_Origin = _form("_Origin", **dict.fromkeys(("name", "folder", "weights_sha256"), (str, ...)))


class _Parameters(_Group):
    strategy: str
    model: dict[str, Any]
    training: _Training
    origin: _Origin | None = None  # the run whose weights it started from
    excluded: dict[str, list[str]] | None = None  # as erroneous: kinds, and own ids by what


class _Metrics(_Group):
    auc: Measure
    logloss: Measure
    gauc: Measure
    auc_interval: Annotated[list[Measure], Field(min_length=2, max_length=2)]
    calibration_error: Measure = np.nan
    gauc_impression: Measure = np.nan  # only where items were shown together


class _Source(_Group):
    folder: str
    fingerprint: str
    name: str = ""
    simulated: bool = False
    rows: dict[str, Whole] = Field(default_factory=dict)
    negatives: schema.NegativesFrom = "unknown"  # older runs do not say
    negatives_per_click: Whole | None = None
    item_ids_sha256: str | None = None  # only of data that have own ids; older runs have none


class SummaryForm(_Group):
    metrics: _Metrics
    dataset: _Source
    parameters: Whole
    seconds: _Seconds
    cost: _Cost = _Cost()  # older runs have none
    reference_auc: dict[str, Measure] = Field(default_factory=dict)
    click_rate: dict[str, float | None] = Field(default_factory=dict)  # older runs have none
    learned_from: _Learned | None = None  # nor this
    item_embedding_sha256: str | None = None  # nor this
    versions: dict[str, str | None] = Field(default_factory=dict)
    git: dict[str, Any] | None = None


ConfigForm = create_model("ConfigForm", __base__=_Parameters, sizes=(Sizes, ...))
BegunForm = create_model("BegunForm", __base__=_Parameters, dataset=(_Source, ...))


def read_json(path: Path, form: type[_Group]) -> dict[str, Any]:
    """A JSON object with at least what `form` asks for, null read back as NaN where it was one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}): train the model again.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} holds no JSON object: train the model again.")
    for name, field in form.model_fields.items():
        if field.is_required() and name not in value:
            raise RunError(f"{path} has no {name!r}: train the model again.")
    return _checked(value, form, f"{path}")


def _checked(value: dict[str, Any], form: type[_Group], where: str) -> dict[str, Any]:
    try:
        return form(**value).model_dump(exclude_unset=True)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise RunError(
            f"{where}, {place}: found {problem['input']!r:.60} ({problem['msg']}): train the model "
            "again."
        ) from None


def fields_in(config: dict[str, Any], path: Path) -> tuple[KnownField, ...]:
    """The fields that a run reads, with their vocabularies; RunError if they are damaged."""
    try:
        return fields_of(config.get("fields", []))
    except ValueError as error:
        raise RunError(f"{path}, fields: {first_line(error)}: train the model again.") from None


def exclusion_in(config: dict[str, Any], path: Path) -> Exclusion | None:
    """What a run was trained without; None if it left out nothing, RunError if that is damaged."""
    if config.get("excluded") is None:
        return None
    try:
        return Exclusion.stated(config["excluded"])
    except TypeError as error:
        raise RunError(f"{path}, excluded: {first_line(error)}: train the model again.") from None


def read_history(path: Path) -> pd.DataFrame:
    """The records of training, a row each validation; RunError if the file is damaged."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        records = [dict(json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunError(
            f"{path} is damaged ({first_line(error)}): train the model again."
        ) from error
    if not records:
        raise RunError(f"{path} has no lines: train the model again.")
    return pd.DataFrame(
        _checked(record, _Record, f"{path}, line {number}")
        for number, record in enumerate(records, start=1)
    )


def read_own_ids(path: Path) -> pd.DataFrame:
    """Columns user_id and item_id, text; older runs have none. RunError if the file is damaged."""
    kinds = schema.OWN_ID_COLUMNS
    try:
        return parquet.read_columns(path, [], list(kinds), kinds).to_pandas()
    except DataError as error:
        raise RunError(f"{path} is damaged ({error}): train the model again.") from error


def read_predictions(path: Path) -> pd.DataFrame:
    """Columns user, target, label, probability; RunError if the file is damaged."""
    try:
        table = parquet.read_columns(path, list(schema.PREDICTION_COLUMNS)).to_pandas()
        wrong = np.flatnonzero(~table["probability"].between(0, 1) | table.isna().any(axis=1))
        if len(wrong):
            row = table.iloc[wrong[0]].to_dict()
            raise DataError(f"row {wrong[0]}: found {row}, expected a probability from 0 to 1")
        return table
    except DataError as error:
        raise RunError(f"{path} is damaged ({error}): train the model again.") from error
