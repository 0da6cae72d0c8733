"""When things happened: times of any unit and kind as nanoseconds since 1970."""

import numpy as np

from mmctr.data.importing.engine import literal
from mmctr.data.importing.sources import FRACTIONS, INTEGERS, Source, quoted
from mmctr.errors import DataError

NANOSECONDS = {"days": 86_400 * 10**9, "seconds": 10**9, "milliseconds": 10**6}
NANOSECONDS |= {"microseconds": 10**3, "nanoseconds": 1}
# Numbers below are taken for times of the unit: 1e5 days are 273 years.
UNITS = ((1e5, "days"), (1e11, "seconds"), (1e14, "milliseconds"), (1e17, "microseconds"))


def nanoseconds(
    source: Source, column: str, of: str = "the time of the click"
) -> tuple[str, int | None, list[str]]:
    """SQL of a column of times in nanoseconds, the unit of its numbers, and what is said of it.

    of: what the times should be, in words. Raises DataError for a column without any time.
    """
    name, kind = quoted(column), source.kind(column)
    if kind == "JSON":
        name, kind = f"({name} ->> '$')", "VARCHAR"
    unit, words = None, "dates"
    if kind == "VARCHAR":
        # Most rows tell: a word or a date among numbers is an unreadable row.
        double, date = (f"try_cast({name} AS {form})" for form in ("DOUBLE", "TIMESTAMP"))
        whole = f"regexp_matches({name}, '^\\s*[+-]?[0-9]+\\s*$')"
        kinds = (f"isfinite({double})", f"isfinite({double}) AND NOT {whole}")
        kinds += (f"CASE WHEN {double} IS NULL THEN {date} IS NOT NULL END",)  # dates are slow
        counted = ", ".join(f"count(*) FILTER ({kind})" for kind in kinds)
        ((numbers, fractions, dates),) = source.rows(f"SELECT {counted} FROM {{source}}")
        if numbers > dates:
            # DuckDB would round what has a fraction.
            kind = "DOUBLE" if fractions else "BIGINT"
            name = f"try_cast({name} AS {kind})"
    if kind in (*INTEGERS, *FRACTIONS):
        # By the middle one: a single damaged time must not change the unit of all.
        size = f"approx_quantile(abs({name}::DOUBLE), 0.5) FILTER (isfinite({name}::DOUBLE))"
        middle = source.rows(f"SELECT {size} FROM {{source}}")[0][0] or 0
        words = next((unit for limit, unit in UNITS if middle < limit), "nanoseconds")
        unit = NANOSECONDS[words]
        if day := _day_of_digits(source, name, int(middle)):
            time, words, unit = f"TRY(epoch_ns({day}))", "dates of digits (yyyymmdd)", None
        elif kind in INTEGERS:
            time = f"TRY(({name}::HUGEINT * {unit})::BIGINT)"
        else:  # a double of today's seconds is exact to the microsecond
            time = f"TRY((round({name}::DOUBLE * {unit} / 1000)::HUGEINT * 1000)::BIGINT)"
    elif kind == "VARCHAR":
        zoned = f"regexp_matches({name}, '(Z|[+-][0-9:]+| [A-Za-z/_]+)$') AND {name} LIKE '%:%'"
        time = (
            f"CASE WHEN {zoned} THEN TRY(epoch_us(try_cast({name} AS TIMESTAMPTZ)) * 1000) "
            f"ELSE TRY(epoch_ns(try_cast({name} AS TIMESTAMP_NS))) END"
        )
    elif kind.startswith(("TIMESTAMP", "DATE")):
        exact = f"{name}" if kind == "TIMESTAMP_NS" else f"{name}::TIMESTAMP"
        time = f"TRY(epoch_ns({exact}))"
    else:
        raise DataError(
            f"{source.name}, column {column}: found {source.columns[column].lower()}, expected "
            "numbers or dates such as 2024-05-31 12:00:00."
        )
    ((first, last),) = source.rows(
        f"SELECT min(time), max(time) FROM (SELECT {time} AS time FROM {{source}})"
    )
    if first is None:
        example = source.rows(f"SELECT {name} FROM {{source}} WHERE {name} IS NOT NULL LIMIT 1")
        found = example[0][0] if example else "nothing"
        raise DataError(
            f"{source.name}, column {column}: found {found}, expected numbers or dates such as "
            "2024-05-31 12:00:00."
        )
    days = [str(np.datetime64(value, "ns").astype("datetime64[s]")) for value in (first, last)]
    said = [f"{column}: {words}, from {days[0]} to {days[1]} (UTC)"]
    if days[0] < "1990" or np.datetime64(last, "ns") > np.datetime64("now"):
        said.append(f"Warning: {column} lies before 1990 or in the future: is it {of}?")
    return time, unit, said


def _day_of_digits(source: Source, number: str, middle: int) -> str:
    """SQL of numbers such as 20240531 or 20240531120000 as dates; empty unless most are some."""
    if len(str(middle)) not in (8, 12, 14):  # today's seconds have 10, milliseconds 13
        return ""
    forms = literal(["%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S"])
    day = f"try_strptime(TRY({number}::BIGINT)::VARCHAR, {forms})"
    some = f"count_if({day} BETWEEN '1990-01-01' AND '2100-12-31')"
    return day if source.rows(f"SELECT 2 * {some} > count({number}) FROM {{source}}")[0][0] else ""
