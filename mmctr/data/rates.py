"""How often rows are clicked, by what is known of them: each field, the hour of the day."""

import re

import numpy as np
import pandas as pd

from mmctr.data.dataset import Dataset
from mmctr.data.fields import UNKNOWN, Field
from mmctr.data.impressions import Impressions

MANY, MOST = 24, 15  # of more values than MANY, as hours are, the MOST frequent are taken
NORMAL = 1.959964  # 97.5% quantile: intervals hold 95%
POSITIONS = {"position", "pos", "rank"}
HOUR = 3_600_000_000_000  # nanoseconds


def field_codes(dataset: Dataset, rows: Impressions) -> list[tuple[Field, np.ndarray]]:
    """Each field of a dataset with the codes that rows have, int32 [n]: items', users', context."""
    of_items = dataset.catalog.field_codes
    codes = [of_items[rows.target, n] for n in range(len(dataset.catalog.fields))]
    codes += [rows.fields[:, n] for n in range(len(dataset.row_fields))]
    return list(zip(dataset.fields, codes, strict=True))


def position_field(dataset: Dataset) -> str | None:
    """The title of the context field that says where an item stood among those shown together.

    By its name: position, item_pos, rank; None if there is none.
    """
    context = [field for field in dataset.row_fields if field.owner == "context"]
    named = (field.title for field in context if POSITIONS & set(_words(field.name)))
    return next(named, None)


def rates_by_field(
    dataset: Dataset,
    rows: Impressions,
    predicted: np.ndarray | None = None,
    least: int = 1,
) -> dict[str, pd.DataFrame]:
    """`rates_by_value` of each field, by title.

    Where negatives were drawn only items have any: a negative is of its click's user and context,
    so that all of their values have the same share. Values stand in their order where they are
    numbers, else the most frequent come first, and of many only those are taken. least: rows that a
    value must have.
    """
    tables = {}
    for field, codes in field_codes(dataset, rows):
        if dataset.negatives_from == "sampled" and field.owner != "item":
            continue
        table = rates_by_value(codes, field.labels(), rows.label, predicted)
        table = table[table["rows"] >= least]
        if field.values is not None:
            table = _in_order(table)
        if len(table):
            tables[field.title] = table.reset_index(drop=True)
    return tables


def rates_by_hour(dataset: Dataset, rows: Impressions) -> pd.DataFrame:
    """`rates_by_value` of the hours of the day, UTC.

    Empty where times tell no hours apart, or negatives were drawn, which have their click's hour.
    """
    known = rows.time is not None and dataset.negatives_from != "sampled"
    hour = rows.time % (24 * HOUR) // HOUR if known else np.zeros(0, np.int64)
    if len(np.unique(hour)) < 2:
        hour = hour[:0]
    return rates_by_value(hour, [f"{n:02}" for n in range(24)], rows.label[: len(hour)])


def rates_by_value(
    codes: np.ndarray, values: list[str], label: np.ndarray, predicted: np.ndarray | None = None
) -> pd.DataFrame:
    """The share of clicks by code, int [n], with its 95% interval (Wilson).

    Columns: value, rows, rate, low, high, and predicted, the mean of predicted probabilities, if
    given; codes without rows are left out.
    """
    rows = np.bincount(codes, minlength=len(values))
    there = np.flatnonzero(rows)
    rows = rows[there]
    rate = np.bincount(codes, label, len(values))[there] / rows
    low, high = wilson(rate, rows)
    table = pd.DataFrame({"value": [values[code] for code in there], "rows": rows, "rate": rate})
    table = table.assign(low=low, high=high)
    if predicted is not None:
        table["predicted"] = np.bincount(codes, predicted, len(values))[there] / rows
    return table


def wilson(rate: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95% interval of shares of so many rows (Wilson, 1927), which small ones need."""
    squared = NORMAL**2 / rows
    middle = (rate + squared / 2) / (1 + squared)
    half = NORMAL / (1 + squared) * np.sqrt(rate * (1 - rate) / rows + squared / (4 * rows))
    return middle - half, middle + half


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """The values of a category, columns as of rates_by_value, in the order to show them."""
    table = table.sort_values("rows", ascending=False, kind="stable")
    table = table if len(table) <= MANY else table.head(MOST)
    numbers = pd.to_numeric(table["value"], errors="coerce")
    if numbers.notna().sum() < 2 or (numbers.isna() & (table["value"] != UNKNOWN)).any():
        return table
    return table.loc[numbers.sort_values(kind="stable", na_position="first").index]


def _words(name: str) -> list[str]:
    """The words of a column's name: of item_pos, itemPos and "item pos" the same."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
