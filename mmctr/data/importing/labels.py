"""What a log says beyond clicks: what else was shown, what together, and which rows to leave out.

Each step turns a table into another one, in SQL.
"""

from dataclasses import replace
from difflib import get_close_matches

from mmctr.data.importing.engine import literal
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sources import FRACTIONS, INTEGERS, Source, id_text, quoted
from mmctr.errors import ConfigError, DataError, first_line

YES = ["1", "true", "t", "yes", "y"]
NO = ["0", "false", "f", "no", "n"]
# Names that no column of a log has.
ROW, PAIR, LABEL = "row of the log", "pair of shown", "label of shown"
WORDS = 1000  # values of a column among which the one nearest to a word is looked for
TOLD = 9  # words or values that are told, where there are many


def filtered(source: Source, where: str | None) -> tuple[Source, int]:
    """The rows for which a condition in SQL holds, and how many others there are.

    Raises ConfigError for a condition that cannot be understood.
    """
    if where is None:
        return source, 0
    # JSON is compared as the text that it holds.
    json = [name for name in source.columns if source.kind(name) == "JSON"]
    plain = "".join(f", {text(source, name)} AS {quoted(name)}" for name in json)
    others = f"EXCLUDE ({', '.join(map(quoted, json))})" if json else ""
    compared = f"(SELECT * {others}{plain} FROM {source.sql})"
    try:
        rows, kept = source.totals("count(*)", f"count_if({where})", of=compared)
    except DataError as error:
        reason = first_line(error.__cause__ or error)
        raise ConfigError(
            f"Parameter 'where' is {where!r}, which cannot be asked of {source.name} ({reason}): "
            "write SQL such as \"event IN ('view', 'click')\", or \"price::DOUBLE > 5\" because "
            "columns of CSV and JSON are text."
        ) from error
    if rows and not kept:
        raise DataError(
            f"{source.name} has no row left: {rows:,} of {rows:,} rows are left out by where: "
            "check its condition."
        )
    sql = f"(SELECT * FROM {source.sql} WHERE {where})"
    if json:
        row = quoted(ROW)
        pairs = f"SELECT {row}, {row}.* {others}{plain} FROM {source.sql} {row}"
        sql = f"(SELECT unnest({row}) FROM ({pairs}) WHERE {where})"
    return replace(source, sql=sql), rows - kept


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
    lists = [_list(source, name) for name in names]
    shown = lists[0]
    if recipe.clicked_column:
        clicked = lists[1]
        unseen = f"list_filter({clicked}, lambda x: NOT list_contains({shown}, x))"
        every = f"list_concat({shown}, {unseen})"
        pair = f"{{'item': x, 'clicked': list_contains({clicked}, x)}}"
    else:
        wrong = f"list_filter({shown}, lambda x: NOT regexp_matches(x, '.-[01]$'))"
        found = source.first(f"{wrong}[1]", f"len({wrong}) > 0")
        if found is not None:
            raise DataError(
                f"{source.name}, column {recipe.shown_column}: found {found!r}, expected "
                "items that end in their label, such as N1-1 N2-0: or name the column of those "
                "that were clicked with -p clicked_column=..."
            )
        every, pair = shown, "{'item': x[:-3], 'clicked': right(x, 1) = '1'}"
    hidden = [name for name in (*names, recipe.item_column) if name in source.columns]
    kept = {name: form for name, form in source.columns.items() if name not in hidden}
    columns, one, row = ", ".join(map(quoted, kept)), quoted(PAIR), quoted(ROW)
    empty = source.totals(f"count_if(len({every}) = 0)")[0]
    pairs = f"unnest(list_transform({every}, lambda x: {pair})) AS {one}"
    # Of one user at one time, what was shown tells impressions apart.
    pairs += f", md5({' || '.join(f'({shown_list})::VARCHAR' for shown_list in lists)}) AS {row}"
    sql = (
        f"(SELECT {columns}, {one}.item AS {quoted(recipe.item_column)}, "
        f"{one}.clicked AS {quoted(LABEL)}, {row} FROM (SELECT {columns}, {pairs} FROM "
        f"{source.sql}))"
    )
    kept |= {recipe.item_column: "VARCHAR", LABEL: "BOOLEAN", ROW: "VARCHAR"}
    rows = replace(source, sql=sql, columns=kept, header=list(kept))
    return rows, recipe.model_copy(update={"label_column": LABEL}), empty


def label(source: Source, recipe: Recipe) -> tuple[str, list[str]]:
    """SQL of a label: 1 for a click, 0 for none, NULL if it is missing; and what is said of it.

    Raises DataError for values that say neither or none, ConfigError for a click that no row has.
    """
    column = recipe.label_column
    if column is None:
        return "1", []
    source.require(column)
    if recipe.min_rating is not None:
        rating = number(source, column)
        # NaN, which careless exports have for nothing, counts as the largest number in SQL.
        liked = f"({rating} >= {recipe.min_rating!r})::INTEGER"
        return f"CASE WHEN NOT isnan({rating}) THEN {liked} END", []
    # A careless export has 1.0 for 1, and a decimal 1.00.
    value = f"regexp_replace(lower(trim({text(source, column)})), '^([0-9]+)\\.0+$', '\\1')"
    value = f"nullif({value}, '')"
    if source.kind(column) in FRACTIONS:
        value = f"CASE WHEN NOT isnan({quoted(column)}) THEN {value} END"
    if recipe.click is not None:
        named = [name.strip().lower().removesuffix(".0") for name in str(recipe.click).split(",")]
        said = _never_there(source, recipe, value, [name for name in named if name])
        return f"CASE WHEN {value} IS NOT NULL THEN ({_among(value, named)})::INTEGER END", said
    strange = f"NOT {_among(value, YES + NO)}"
    if found := source.first(value, strange):
        raise DataError(
            f"{source.name}, column {column}: found {found!r}, expected 1 and 0 or yes and "
            "no: set --min-rating to the lowest that is a click, or name what is with -p click=..."
        )
    return f"CASE WHEN {_among(value, YES)} THEN 1 WHEN {_among(value, NO)} THEN 0 END", []


def _never_there(source: Source, recipe: Recipe, value: str, named: list[str]) -> list[str]:
    """Warnings of words of `click` that no row has; an error if no row has any."""
    column = f"column {recipe.label_column} of {source.name}"
    there = source.distinct(f"CASE WHEN {_among(value, named)} THEN {value} END", len(named))
    if not there:
        if not (found := source.distinct(value, TOLD)):
            raise DataError(
                f"{source.name}, column {recipe.label_column}: found no value, expected "
                f"{recipe.click!r}: name the column that says which rows are clicks."
            )
        raise ConfigError(
            f"Parameter 'click' is {recipe.click!r}, but {column} has only "
            f"{', '.join(map(str, found))}: choose one or more of these."
        )
    missing = [word for word in dict.fromkeys(named) if word not in there]
    values = source.distinct(value, WORDS) if missing else []
    said = [
        f"Warning: parameter 'click' names {word}, which {column} never has: the nearest that it "
        f"has is {get_close_matches(word, values, 1, 0)[0]}."
        for word in missing[:TOLD]
    ]
    if more := len(missing[TOLD:]):
        said.append(
            f"Warning: parameter 'click' names {more:,} more words that {column} never has."
        )
    return said


def impression(source: Source, recipe: Recipe) -> str:
    """SQL of what tells impressions of a user apart, as text unlike a time; NULL if time does."""
    if recipe.impression_column:
        return f"'#' || {id_text(source, recipe.impression_column)}"
    if recipe.shown_column:
        return f"{quoted(ROW)} || {text(source, recipe.time_column)}"
    return "NULL"


def too_low(source: Source, recipe: Recipe) -> str:
    """SQL of whether a row is no click for its rating, and nothing else."""
    if recipe.min_rating is None or recipe.label_column:
        return "false"
    rating = number(source, recipe.rating_column)
    # NaN, which careless exports have for nothing, counts as the largest number in SQL.
    return f"coalesce({rating} < {recipe.min_rating!r} OR isnan({rating}), true)"


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
        if found := source.first(value, wrong):
            raise DataError(f"{source.name}, column {column}: found {found!r}, expected numbers.")
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
    whole = f"coalesce({text(source, column)}, '')"
    bare = f"regexp_replace({whole}, '[\\[\\]\"'']', '', 'g')"
    words = f"list_filter(string_split_regex({bare}, '[\\s,;|]+'), lambda x: x <> '')"
    # Python writes lists as JSON does, but for its quotes.
    pythons = f"replace({whole}, '''', '\"')"
    lists = (f"TRY(from_json({t}, '[\"VARCHAR\"]'))" for t in (whole, pythons))
    return f"coalesce({', '.join(lists)}, {words})"
