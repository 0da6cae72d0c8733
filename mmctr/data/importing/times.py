"""When things happened: times of any unit and kind as nanoseconds since 1970."""

import numpy as np

from mmctr.data.importing.engine import literal
from mmctr.data.importing.sources import FRACTIONS, INTEGERS, Source, quoted
from mmctr.errors import DataError

NANOSECONDS = {"days": 86_400 * 10**9, "seconds": 10**9, "milliseconds": 10**6}
NANOSECONDS |= {"microseconds": 10**3, "nanoseconds": 1}
# Numbers of so many digits are taken for times of the unit: 1e5 days are 273 years.
UNITS = ((5, "days"), (11, "seconds"), (14, "milliseconds"), (17, "microseconds"))
DAYS = (8, 12, 14)  # digits of yyyymmdd, with hour and minute, and with second
DIGITS = sorted({*(digits for digits, _ in UNITS), *DAYS, *(digits - 1 for digits in DAYS)})


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
        numbers, fractions, dates = source.totals(*(f"count(*) FILTER ({kind})" for kind in kinds))
        if numbers > dates:
            # DuckDB would round what has a fraction.
            kind = "DOUBLE" if fractions else "BIGINT"
            name = f"try_cast({name} AS {kind})"
    if kind in (*INTEGERS, *FRACTIONS):
        # By the middle one: a single damaged time must not change the unit of all.
        size = f"abs({name}::DOUBLE)"
        all_of_them, *below = source.totals(
            f"count(*) FILTER (isfinite({size}))",
            *(f"count(*) FILTER ({size} < 1e{n})" for n in DIGITS),
        )
        digits = next(
            (n for n, some in zip(DIGITS, below, strict=True) if 2 * some >= all_of_them), 18
        )
        words = next((unit for most, unit in UNITS if digits <= most), "nanoseconds")
        unit = NANOSECONDS[words]
        if day := _day_of_digits(source, name, digits):
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
    timed = f"(SELECT {time} AS time FROM {{source}})"
    first, last = source.totals("min(time)", "max(time)", of=timed)
    if first is None:
        example = source.first(name, f"{name} IS NOT NULL")
        found = "nothing" if example is None else example
        raise DataError(
            f"{source.name}, column {column}: found {found}, expected numbers or dates such as "
            "2024-05-31 12:00:00."
        )
    days = [str(np.datetime64(value, "ns").astype("datetime64[s]")) for value in (first, last)]
    said = [f"{column}: {words}, from {days[0]} to {days[1]} (UTC)"]
    if days[0] < "1990" or np.datetime64(last, "ns") > np.datetime64("now"):
        said.append(f"Warning: {column} lies before 1990 or in the future: is it {of}?")
    return time, unit, said


def _day_of_digits(source: Source, number: str, digits: int) -> str:
    """SQL of numbers such as 20240531 or 20240531120000 as dates; empty unless most are some."""
    if digits not in DAYS:  # today's seconds have 10, milliseconds 13
        return ""
    forms = literal(["%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S"])
    day = f"try_strptime(TRY({number}::BIGINT)::VARCHAR, {forms})"
    some, every = source.totals(
        f"count(*) FILTER ({day} BETWEEN '1990-01-01' AND '2100-12-31')", f"count({number})"
    )
    return day if 2 * some > every else ""
