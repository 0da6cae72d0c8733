"""A log as events, sorted by user and time: read, joined to the items, and sorted by DuckDB."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from mmctr.data.importing.engine import progress
from mmctr.data.importing.fields import Column, asked, field_names
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
from mmctr.data.importing.sources import Source, id_key, id_text, quoted
from mmctr.data.importing.times import nanoseconds
from mmctr.errors import DataError

CHUNK = 1 << 18  # clicks that are worked on at once, or one user's: they fit a processor's cache
BATCH = 1 << 17  # rows that are taken over from DuckDB at once
LABELS = ("label", "click", "clicked", "is_click")  # columns that likely say what was clicked


@dataclass(frozen=True)
class Events:
    """Events of whole users, sorted by user and time: int64 arrays, one entry an event.

    An event is a click, or, in a log with labels, an item that was shown. user: numbered from 1.
    item: new ids. time: nanoseconds since 1970. label: 1 for a click. shown: the time at which the
    first of its impression was. start: where the user's events begin. before: the first event that
    is not earlier than shown, so that start..before are those that happened before. impression:
    alike for items shown together, or None. context: values of fields, a column each.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    label: np.ndarray
    shown: np.ndarray
    start: np.ndarray
    before: np.ndarray
    impression: np.ndarray | None
    context: pa.Table

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Log:
    """The events of a log in a file, in order. counts: of rows; said: what was understood."""

    path: Path
    events: int
    counts: dict[str, int]
    said: list[str]
    unit: int | None  # nanoseconds of the log's own numbers; None for dates
    simultaneous: bool  # whether events of equal time are
    impressions: bool  # whether what was shown together is known
    context: list[Column]

    def chunks(self, description: str) -> Iterator[Events]:
        """The events in order, whole users at a time."""
        file = pq.ParquetFile(self.path)
        with tqdm(total=self.events, desc=description, unit=" events", unit_scale=True) as bar:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number)
                yield _events(table, self.simultaneous)
                bar.update(len(table))


def read_log(source: Source, recipe: Recipe, workplace: Path) -> Log:
    """Sort a log's events on the items of the table `items` into a file.

    In a log of clicks a user clicks an item once: only the first time tells of a choice among
    unseen items. One with labels is kept whole, but for an item that one impression repeats.
    Writes events.parquet and user_ids.parquet. Raises DataError for columns that cannot be used, or
    if no click is left.
    """
    source, left_out = filtered(source, recipe.where)
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
        if source.rows(f"SELECT count(DISTINCT {quoted(column)}) FROM {{source}}")[0][0] == 2:
            said.append(
                f"Warning: column {column} is there but not used: every row counts as a click; "
                f"give --label {column} if it says which were clicked."
            )
    context = asked(source, recipe.context_fields, {recipe.time_column: time})
    item_id, form = id_key(source, recipe.item_column)
    columns = {
        # Text: groups of many numbers outgrow DuckDB's part of memory, which those of text spill.
        "user_id": id_text(source, recipe.user_column),
        "item_id": item_id,
        "time": time,
        "place": text(source, recipe.order_by) if recipe.order_by else "NULL",
        "label": label(source, recipe) if recipe.label_column else "1",
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
    # Users are numbered before the sort, which then moves numbers instead of text.
    known_user = "CASE WHEN kind = 'known' THEN user_id END"
    grouped = f"SELECT kind, {known_user} AS user_id, count(*) AS rows FROM ({joined}) GROUP BY ALL"
    source.create("kinds", grouped, "read")
    counts, examples = _counts(source, joined, recipe, left_out)
    if not counts["known"]:
        raise _nothing_left(source, recipe, counts)
    said += examples
    numbered = "SELECT user_id, row_number() OVER (ORDER BY length(user_id), user_id) AS user"
    source.create("users", f"{numbered} FROM kinds WHERE kind = 'known'", "number users")
    source.connection.execute("DROP TABLE kinds")
    users = _write_users(source, workplace / "user_ids.parquet")
    wanted = ["user::INTEGER AS user", "number::INTEGER AS item", "time"]
    order = ["user", "time"]
    if recipe.label_column:
        wanted.append("label::TINYINT AS label")
    if columns["impression"] != "NULL":
        together = "coalesce(impression, time::VARCHAR)"
        wanted.append(f"{together} AS impression")
        wanted.append(f"min(time) OVER (PARTITION BY user, {together}) AS shown")
        order.append("impression")
    if recipe.order_by:
        # Whichever row of an item comes first, it was clicked if one of the same time was.
        if recipe.label_column:
            wanted[3] = "max(label) OVER (PARTITION BY user, time, item)::TINYINT AS label"
        # Whole numbers beyond 2^53 are equal as doubles only.
        order += [f"try_cast(place AS {kind}) NULLS LAST" for kind in ("DOUBLE", "HUGEINT")]
        order.append("place")
    fields = [f"context{place}" for place in range(len(context))]
    order += ["item", *(["label DESC"] if recipe.label_column else []), *fields]
    ordered = (
        f"SELECT {', '.join([*wanted, *fields])} FROM (SELECT * FROM ({joined}) JOIN users "
        f"USING (user_id) WHERE kind = 'known') ORDER BY {', '.join(order)}"
    )
    path = workplace / "events.parquet"
    with progress(source.connection, "sort"):
        found = _write_events(source.batches(ordered, BATCH), path)
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
    counts |= {"users": users, "simultaneous": found["ties"] if simultaneous else 0}
    return Log(path, kept, counts, said, unit, simultaneous, bool(found["impressions"]), context)


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
    source: Source, joined: str, recipe: Recipe, left_out: int
) -> tuple[dict[str, int], list[str]]:
    """How many rows are of which kind, and sentences on what was lost."""
    by_kind = dict(source.rows("SELECT kind, sum(rows)::BIGINT FROM kinds GROUP BY kind"))
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
            example = source.rows(
                f"SELECT user_id, item_id FROM ({joined}) WHERE kind = '{kind}' LIMIT 1"
            )
            words = "could not be read" if kind == "unreadable" else "are of items not in the table"
            said.append(
                f"{counts[kind]:,} of {total:,} rows {words}"
                + (f", such as user {example[0][0]}, item {example[0][1]}." if example else ".")
            )
    return counts, said


def _write_users(source: Source, path: Path) -> int:
    """Write the users' numbers and their own ids; how many there are."""
    form = pa.schema([("user_id", pa.int64()), ("original_id", pa.string())])
    users = 0
    with pq.ParquetWriter(path, form) as file:
        for batch in source.batches("SELECT user, user_id FROM users ORDER BY user", BATCH):
            file.write_batch(pa.record_batch(batch.columns, names=form.names).cast(form), BATCH)
            users += len(batch)
    return users


def _write_events(batches: Iterator[pa.RecordBatch], path: Path) -> dict[str, int]:
    """Write sorted events without repeated ones; how many events, clicks, ties, impressions."""
    counts = dict.fromkeys(("events", "clicks", "ties", "impressions"), 0)
    with ExitStack() as stack:
        file = None
        for table in _whole_users(batches):
            user, item, time = (table[name].to_numpy() for name in ("user", "item", "time"))
            label = table["label"].to_numpy() if "label" in table.column_names else None
            # A log of clicks counts an item once a user, one with labels once an impression, where
            # it was clicked if it ever was.
            group = user if label is None else (together := _together(table))
            pairs = pd.Series((group.astype(np.int64) << 32) | item)
            if label is not None:
                pairs = pairs.iloc[np.argsort(-label, kind="stable")]
            first = ~pairs.duplicated().sort_index().to_numpy()
            if "impression" in table.column_names:
                place = table.column_names.index("impression")
                shown = pa.array(counts["impressions"] + together)
                table = table.set_column(place, "impression", shown)
                counts["impressions"] += int(together.max())
            table = table.filter(pa.array(first))
            if file is None:
                writer = pq.ParquetWriter(path, table.schema, use_dictionary=_texts(table.schema))
                file = stack.enter_context(writer)
            file.write_table(table, row_group_size=1 << 62)
            user, time = user[first], time[first]
            as_before = (np.diff(user) == 0) & (np.diff(time) == 0)
            counts["ties"] += int((np.r_[False, as_before] | np.r_[as_before, False]).sum())
            counts["events"] += len(user)
            counts["clicks"] += len(user) if label is None else int(label[first].sum())
    return counts


def _together(table: pa.Table) -> np.ndarray:
    """The number of what each event was shown with, from 1: a user's impression, or else a time."""
    told = "impression" if "impression" in table.column_names else "time"
    pairs = pd.MultiIndex.from_arrays([table["user"].to_numpy(), table[told].to_pandas()])
    return 1 + pairs.factorize()[0]


def _texts(form: pa.Schema) -> list[str]:
    return [field.name for field in form if pa.types.is_string(field.type)]


def _whole_users(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """CHUNK clicks at a time, less those of the last user, who may go on, but one user at least.

    Where a table ends depends on the clicks alone, not on the batches they come in.
    """
    waiting, wanted = None, CHUNK
    for batch in batches:
        table = pa.Table.from_batches([batch])
        waiting = pa.concat_tables([waiting, table]) if waiting else table
        while len(waiting) >= wanted:
            user = waiting["user"][:wanted].to_numpy()
            if stop := int(np.searchsorted(user, user[-1])):
                yield waiting[:stop]
                waiting = waiting[stop:]
            wanted = CHUNK if stop else 2 * wanted
    yield waiting


def _events(table: pa.Table, simultaneous: bool) -> Events:
    user, item, time = (table[c].to_numpy().astype(np.int64) for c in ("user", "item", "time"))
    further = {
        name: table[name].to_numpy().astype(np.int64)
        for name in ("label", "impression", "shown")
        if name in table.column_names
    }
    at, new_user = np.arange(len(user)), np.r_[True, user[1:] != user[:-1]]
    new_time = new_user | np.r_[True, time[1:] != time[:-1]]
    start = np.maximum.accumulate(np.where(new_user, at, 0))
    before = np.maximum.accumulate(np.where(new_time, at, 0)) if simultaneous else at
    shown = further.get("shown", time)
    if "shown" in further:
        # What was shown together has one history, however late the others follow the first.
        moments, rank = np.unique(time, return_inverse=True)
        key = user * (len(moments) + 1)
        before = np.searchsorted(key + rank, key + np.searchsorted(moments, shown))
    return Events(
        user=user,
        item=item,
        time=time,
        label=further.get("label", np.ones_like(user)),
        shown=shown,
        start=start,
        before=before,
        impression=further.get("impression"),
        context=table.select([c for c in table.column_names if c.startswith("context")]),
    )
