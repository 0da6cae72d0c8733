"""A log as events in order: its columns understood, its rows joined to the items, and sorted."""

from pathlib import Path

from mmctr.data.importing.events import Log
from mmctr.data.importing.fields import asked, field_names
from mmctr.data.importing.labels import (
    ROW,
    filtered,
    impression,
    label,
    text,
    too_low,
    unnested,
)
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sorting import Query, Sorter
from mmctr.data.importing.sources import Source, id_key, id_text, quoted
from mmctr.data.importing.times import nanoseconds
from mmctr.errors import DataError

LABELS = ("label", "click", "clicked", "is_click")  # columns that likely say what was clicked


def read_log(source: Source, recipe: Recipe, workplace: Path, sorter: Sorter) -> Log:
    """Sort a log's events on the items of the table `items` into a file, or as the sorter does it.

    In a log of clicks a user clicks an item once: only the first time tells of a choice among
    unseen items. One with labels is kept whole, but for an item that one impression repeats.
    Writes events.parquet and user_ids.parquet. Raises DataError for columns that cannot be used, or
    if no click is left.
    """
    source, left_out = filtered(sorter.source(source), recipe.where)
    source, recipe, empty = unnested(source, recipe)
    needed = [recipe.user_column, recipe.item_column, recipe.time_column]
    needed += filter(None, (recipe.order_by, recipe.label_column, recipe.impression_column))
    named = field_names(recipe.context_fields, source)
    source.require(*needed, *named)
    if recipe.label_column is None and recipe.rating_column in source.columns:
        source.require(recipe.rating_column)
    elif recipe.label_column is None and recipe.min_rating is not None:
        raise DataError(
            f"{source.name} has no column {recipe.rating_column}, which min_rating needs: name the "
            "rating column or leave min_rating out."
        )
    needed += [recipe.rating_column, ROW, *named]
    unused = [c for c in source.columns if c.lower() in LABELS and not _tells_clicks(recipe)]
    source = source.kept(needed + unused, workplace / "log.parquet")
    time, unit, said = nanoseconds(source, recipe.time_column)
    for column in unused:
        if len(source.distinct(quoted(column), 3)) == 2:
            said.append(
                f"Warning: column {column} is there but not used: every row counts as a click; "
                f"give --label {column} if it says which were clicked."
            )
    context = asked(source, recipe.context_fields, {recipe.time_column: time})
    item_id, form = id_key(source, recipe.item_column)
    clicked, warnings = label(source, recipe)
    said += warnings
    columns = {
        # Text: groups of many numbers outgrow DuckDB's part of memory, which those of text spill.
        "user_id": id_text(source, recipe.user_column),
        "item_id": item_id,
        "time": time,
        "place": text(source, recipe.order_by) if recipe.order_by else "NULL",
        "label": clicked,
        "impression": impression(source, recipe),
        "low": too_low(source, recipe),
    }
    columns |= {f"context{place}": column.sql for place, column in enumerate(context)}
    listed = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    rows = f"SELECT {listed} FROM {{source}}"
    kind = (
        "CASE WHEN low THEN 'below_min_rating' WHEN user_id IS NULL OR item_id IS NULL OR time IS "
        "NULL OR label IS NULL THEN 'unreadable' WHEN number IS NULL THEN 'of_unknown_items' ELSE "
        "'known' END"
    )
    # An item's text counts only as the log's type writes it: 007 is not 7.
    alike = f"try_cast(id AS {form}) AS id, number FROM items WHERE try_cast(id AS {form})::VARCHAR"
    joined = (
        f"SELECT *, {kind} AS kind FROM ({rows}) LEFT JOIN (SELECT {alike} = id) items ON item_id "
        "= items.id"
    )
    known = ["user_id", "number::INTEGER AS item", "time", "label::TINYINT AS label"]
    known += ["place::VARCHAR AS place", "impression::VARCHAR AS impression"]
    fields = [f"context{place}" for place in range(len(context))]
    wanted = ["user::INTEGER AS user", "item", "time"]
    order = ["user", "time"]
    if recipe.label_column:
        wanted.append("label")
    if columns["impression"] != "NULL":
        together = "coalesce(impression, time::VARCHAR)"
        wanted.append(f"{together} AS impression")
        wanted.append(f"min(time) OVER (PARTITION BY user, {together}) AS shown")
        order.append("impression")
    if recipe.order_by:
        # Whichever row of an item comes first, it was clicked if one of the same time was.
        if recipe.label_column:
            wanted[3] = "max(label) OVER (PARTITION BY user, time, item) AS label"
        # Whole numbers beyond 2^53 are equal as doubles only.
        order += [f"try_cast(place AS {form}) NULLS LAST" for form in ("DOUBLE", "HUGEINT")]
        order.append("place")
    order += ["item", *(["label DESC"] if recipe.label_column else []), *fields]
    ordered = (
        f"SELECT {', '.join([*wanted, *fields])} FROM {{known}} JOIN users USING (user_id) ORDER "
        f"BY {', '.join(order)}"
    )
    query = Query(joined, ", ".join([*known, *fields]), ordered)
    counts, examples = _counts(source, sorter.kinds(source, query), joined, recipe, left_out)
    if not counts["known"]:
        raise _nothing_left(source, recipe, counts)
    said += examples
    parts = sorter.sort(source, query, counts["known"], workplace)
    found = {name: sum(part.counts[name] for part in parts) for name in parts[0].counts}
    kept = found.pop("events")
    if not found["clicks"]:
        raise DataError(
            f"{source.name} has no click among its {kept:,} rows: check the label column, or name "
            "what is a click with -p click=..."
        )
    if recipe.label_column and found["clicks"] == kept:
        raise DataError(
            f"{source.name} has nothing but clicks among its {kept:,} rows: check the label "
            "column, or leave it out to have negatives drawn."
        )
    counts |= {"repeated": counts.pop("known") - kept, "clicks": found["clicks"]}
    if recipe.label_column:
        counts |= {"not_clicked": kept - found["clicks"]}
        counts |= {"impressions": found["impressions"]} if found["impressions"] else {}
        counts |= {"empty_impressions": empty} if recipe.shown_column else {}
    simultaneous = recipe.order_by is None
    counts |= {"users": found["users"], "simultaneous": found["ties"] if simultaneous else 0}
    shown = bool(found["impressions"])
    return sorter.log(
        parts, Log(parts[0].path, kept, counts, said, unit, simultaneous, shown, context)
    )


def _tells_clicks(recipe: Recipe) -> bool:
    """Whether the user has said which rows are clicks."""
    named = recipe.label_column, recipe.min_rating, recipe.where
    return any(option is not None for option in named)


def _nothing_left(source: Source, recipe: Recipe, counts: dict[str, int]) -> DataError:
    """What became of most rows of a log of which none is left, and what to do."""
    kinds = {
        "below_min_rating": (f"are below min_rating {recipe.min_rating}", "choose a lower one"),
        "unreadable": ("could not be read", "check the columns of users, items and times"),
        "of_unknown_items": ("are of items not in the table", "check the id columns"),
    }
    most = max(kinds, key=lambda kind: counts.get(kind, 0))
    words, advice = kinds[most]
    return DataError(
        f"{source.name} has no row on an item of the items table: {counts[most]:,} of "
        f"{counts['interactions']:,} rows {words}: {advice}."
    )


def _counts(
    source: Source, by_kind: dict[str, int], joined: str, recipe: Recipe, left_out: int
) -> tuple[dict[str, int], list[str]]:
    """How many rows are of which kind, and sentences on what was lost."""
    torn = source.torn_lines()
    total = sum(by_kind.values()) + torn + left_out
    counts = {"interactions": total}
    if recipe.where is not None:
        counts["left_out_by_where"] = left_out
    if recipe.min_rating is not None and recipe.label_column is None:
        counts["below_min_rating"] = by_kind.get("below_min_rating", 0)
    counts["unreadable"] = by_kind.get("unreadable", 0) + torn
    counts["of_unknown_items"] = by_kind.get("of_unknown_items", 0)
    counts["known"] = by_kind.get("known", 0)
    said = []
    for kind in ("unreadable", "of_unknown_items"):
        if counts[kind] > 0.05 * total:
            one = "[user_id, item_id::VARCHAR]"
            example = source.first(one, f"kind = '{kind}'", f"({joined})")
            words = "could not be read" if kind == "unreadable" else "are of items not in the table"
            said.append(
                f"{counts[kind]:,} of {total:,} rows {words}"
                + (f", such as user {example[0]}, item {example[1]}." if example else ".")
            )
    return counts, said
