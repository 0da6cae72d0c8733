"""What a log says beyond clicks: what else was shown, what together, and which rows to leave out.

Each step turns a table into another one, in SQL.
"""

from dataclasses import replace

from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sources import FRACTIONS, INTEGERS, Source, literal, quoted
from mmctr.errors import ConfigError, DataError

YES = ["1", "1.0", "true", "t", "yes", "y"]
NO = ["0", "0.0", "false", "f", "no", "n"]
KEPT, LABEL = "kept by where", "label of shown"  # columns that are added


def filtered(source: Source, where: str | None) -> Source:
    """A table with the column KEPT: whether a condition in SQL holds for a row.

    Raises ConfigError for a condition that cannot be understood.
    """
    if where is None:
        return source
    # JSON is compared as the text that it holds.
    plain = ", ".join(f"{text(source, name)} AS {quoted(name)}" for name in source.columns)
    sql = (
        f"(SELECT unnest(original), coalesce(({where}), false) AS {quoted(KEPT)} FROM "
        f"(SELECT original, {plain} FROM {source.sql} original))"
    )
    found = replace(source, sql=sql, columns=source.columns | {KEPT: "BOOLEAN"})
    try:
        found.rows(f"SELECT count_if({quoted(KEPT)}) FROM {{source}}")
    except DataError as error:
        raise ConfigError(
            f"Parameter 'where' is {where!r}, which cannot be asked of {source.name} "
            f"({error.__cause__}): write SQL such as \"event_type IN ('view', 'click')\", or "
            '"price::DOUBLE > 5" because columns of CSV are text.'
        ) from error
    return found


def unnested(source: Source, recipe: Recipe) -> tuple[Source, Recipe, int]:
    """A row for each item of impressions that stand in a row each; the recipe for such rows, and
    how many impressions are empty.

    shown_column holds lists, with those that were clicked in clicked_column, or words such as
    "N1-1 N2-0" that end in their label. A clicked item that is not listed as shown counts as shown.
    """
    if recipe.shown_column is None:
        return source, recipe, 0
    names = [recipe.shown_column, *filter(None, [recipe.clicked_column])]
    source.require(*names)
    shown = _list(source, recipe.shown_column)
    if recipe.clicked_column:
        clicked = _list(source, recipe.clicked_column)
        every = f"list_distinct(list_concat({shown}, {clicked}))"
        pair = f"{{'item': x, 'clicked': list_contains({clicked}, x)}}"
    else:
        wrong = f"list_filter({shown}, lambda x: NOT regexp_matches(x, '.-[01]$'))"
        if found := source.rows(
            f"SELECT {wrong}[1] FROM {{source}} WHERE len({wrong}) > 0 LIMIT 1"
        ):
            raise DataError(
                f"{source.name}, column {recipe.shown_column}: found {found[0][0]!r}, expected "
                "items that end in their label, such as N1-1 N2-0: or name the column of those "
                "that were clicked with -p clicked_column=..."
            )
        every, pair = shown, "{'item': x[:-3], 'clicked': right(x, 1) = '1'}"
    hidden = [name for name in (*names, recipe.item_column) if name in source.columns]
    kept = {name: form for name, form in source.columns.items() if name not in hidden}
    columns = ", ".join(map(quoted, kept))
    pairs = f"SELECT *, list_transform({every}, lambda x: {pair}) AS pairs FROM {source.sql}"
    empty = source.rows(f"SELECT count_if(len(pairs) = 0) FROM ({pairs})")[0][0]
    sql = (
        f"(SELECT {columns}, pair.item AS {quoted(recipe.item_column)}, "
        f"pair.clicked AS {quoted(LABEL)} FROM (SELECT *, unnest(pairs) AS pair FROM ({pairs})))"
    )
    kept |= {recipe.item_column: "VARCHAR", LABEL: "BOOLEAN"}
    rows = replace(source, sql=sql, columns=kept, header=list(kept))
    return rows, recipe.model_copy(update={"label_column": LABEL}), empty


def label(source: Source, recipe: Recipe) -> str:
    """SQL of a row's label: 1 for a click, 0 for none, NULL if it is missing.

    Raises DataError for values that say neither, ConfigError for a click that no row has.
    """
    column = recipe.label_column
    source.require(column)
    if recipe.min_rating is not None:
        rating = number(source, column)
        # NaN, which careless exports have for nothing, counts as the largest number in SQL.
        return (
            f"CASE WHEN NOT isnan({rating}) THEN ({rating} >= {recipe.min_rating!r})::INTEGER END"
        )
    value = f"lower(trim({text(source, column)}))"
    if source.kind(column) in FRACTIONS:
        value = f"CASE WHEN NOT isnan({quoted(column)}) THEN {value} END"
    if recipe.click is not None:
        names = [name.strip().lower() for name in str(recipe.click).split(",")]
        if not source.rows(f"SELECT 1 FROM {{source}} WHERE {_among(value, names)} LIMIT 1"):
            found = source.rows(f"SELECT DISTINCT {value} FROM {{source}} ORDER BY 1 LIMIT 9")
            raise ConfigError(
                f"Parameter 'click' is {recipe.click!r}, but column {column} of {source.name} has "
                f"only {', '.join(str(one[0]) for one in found)}: choose one or more of these."
            )
        return f"CASE WHEN {value} IS NOT NULL THEN ({_among(value, names)})::INTEGER END"
    strange = f"{value} <> '' AND NOT {_among(value, YES + NO)}"
    if found := source.rows(f"SELECT {value} FROM {{source}} WHERE {strange} LIMIT 1"):
        raise DataError(
            f"{source.name}, column {column}: found {found[0][0]!r}, expected 1 and 0 or yes and "
            "no: set --min-rating to the lowest that is a click, or name what is with -p click=..."
        )
    return f"CASE WHEN {_among(value, YES)} THEN 1 WHEN {_among(value, NO)} THEN 0 END"


def text(source: Source, column: str) -> str:
    """SQL of a column as text."""
    name = quoted(column)
    return f"({name} ->> '$')" if source.kind(column) == "JSON" else f"{name}::VARCHAR"


def number(source: Source, column: str) -> str:
    """SQL of a column of numbers; DataError if a value is none."""
    kind = source.kind(column)
    if kind in ("VARCHAR", "JSON"):
        value = text(source, column)
        wrong = f"trim({value}) <> '' AND try_cast({value} AS DOUBLE) IS NULL"
        if found := source.rows(f"SELECT {value} FROM {{source}} WHERE {wrong} LIMIT 1"):
            raise DataError(
                f"{source.name}, column {column}: found {found[0][0]!r}, expected numbers."
            )
        return f"try_cast({value} AS DOUBLE)"
    if kind not in (*INTEGERS, *FRACTIONS):
        found = source.columns[column].lower()
        raise DataError(f"{source.name}, column {column}: found {found}, expected numbers.")
    return f"{quoted(column)}::DOUBLE"


def _among(value: str, words: list[str]) -> str:
    return f"list_contains({literal(words)}, {value})"


def _list(source: Source, column: str) -> str:
    """SQL of a column as a list of ids: a true list, its text, or words between spaces or | ; ,."""
    form, name = source.columns[column], quoted(column)
    if form.endswith("]"):
        inner = form[: form.rindex("[")].split("(")[0]
        whole = "CASE WHEN x = trunc(x) THEN x::HUGEINT::VARCHAR ELSE x::VARCHAR END"
        one = whole if inner in FRACTIONS else "x ->> '$'" if inner == "JSON" else "x::VARCHAR"
        return f"coalesce(list_transform({name}, lambda x: {one}), [])"
    bare = f"regexp_replace(coalesce({text(source, column)}, ''), '[\\[\\]\"'']', '', 'g')"
    return f"list_filter(string_split_regex({bare}, '[\\s,;|]+'), lambda x: x <> '')"
