"""Ranked items for users: every candidate scored by a run, the best ones kept.

A user's history is all that a dataset knows of its clicks, which may come from a newer log than
the run was trained on; what was clicked already is not recommended again.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from mmctr.data import parquet
from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import slice_positions
from mmctr.errors import DataError, first_line
from mmctr.files import atomic_path
from mmctr.runs.run import Run
from mmctr.training.prediction import Scorer


class Clicks:
    """What a dataset knows of the clicks of its users, over all splits.

    The latest row of a user is that of the latest time, or where there are no times, the last of
    those with the longest history. Its history, and after it the targets clicked in rows as late,
    are the user's history now. Without times these are the clicked ones that it does not hold.
    """

    def __init__(self, dataset: Dataset) -> None:
        parts = list(dataset.splits.values())
        self.has_times = all(rows.time is not None for rows in parts)
        before = np.cumsum([0, *(len(rows.history_items) for rows in parts)])
        self.items = np.concatenate([rows.history_items for rows in parts])
        shifted = zip(parts, before, strict=False)
        bounds = [(rows.history_start + at, rows.history_end + at) for rows, at in shifted]
        self.start, self.end = (np.concatenate(ends) for ends in zip(*bounds, strict=True))
        self.target = np.concatenate([rows.target for rows in parts])
        labels = [np.zeros(len(rows)) if rows.label is None else rows.label for rows in parts]
        self.clicked = np.concatenate(labels) == 1
        times = [rows.time if self.has_times else rows.history_length for rows in parts]
        self.key, user = np.concatenate(times), np.concatenate([rows.user for rows in parts])
        self.order = np.lexsort((self.key, user))  # stable: rows of one key stay as in the files
        self.users, first = np.unique(user[self.order], return_index=True)
        self.bounds = np.append(first, len(user))
        fields = [rows.fields for rows in parts if rows.fields is not None]
        self.fields = np.concatenate(fields) if fields else None
        # What a user is stays; what the next row's context will be nobody knows.
        self.of_user = np.array([field.owner == "user" for field in dataset.row_fields])

    def rows(self, user: int) -> np.ndarray:
        """The rows of a user, int64 [n], the latest last."""
        place = int(np.searchsorted(self.users, user))
        return self.order[self.bounds[place] : self.bounds[place + 1]]

    def history(self, user: int) -> np.ndarray:
        """The items that a user clicked, int32 [clicks], the latest last."""
        rows = self.rows(user)
        last = rows[-1]
        known = self.items[self.start[last] : self.end[last]]
        latest = rows[self.key[rows] == self.key[last]]
        after = self.target[latest[self.clicked[latest]]]
        return np.append(known, after if self.has_times else after[~np.isin(after, known)])

    def seen(self, user: int) -> np.ndarray:
        """All items that a user is known to have clicked, int32 [m], rising."""
        rows = self.rows(user)
        slices = np.unique(np.stack([self.start[rows], self.end[rows]]), axis=1)
        clicks = self.items[slice_positions(slices[0], slices[1] - slices[0])]
        return np.unique(np.append(clicks, self.target[rows[self.clicked[rows]]]))

    def codes(self, user: int) -> np.ndarray | None:
        """Codes of the user's fields, and of a context that is unknown; None without fields."""
        if self.fields is None:
            return None
        return np.where(self.of_user, self.fields[self.rows(user)[-1]], 0)


def recommend(
    run: Run,
    dataset: Dataset,
    users: Sequence[str] | None = None,
    candidates: np.ndarray | None = None,
    top: int = 20,
) -> pd.DataFrame:
    """The best candidates for each user, of those that it has not clicked: at most `top` rows each.

    dataset: read by Dataset.load(folder, run.fields); its catalog may have grown since the run was
    trained, and its log gives the histories. users: their own ids, all if not given. candidates:
    numbers of items, all if not given. Columns: user_id, rank (from 1), item_id, title, score (the
    probability of a click) and new (whether the run does not know the item). Raises DataError for
    unknown users, RunError for data that the run cannot serve.
    """
    catalog, clicks = dataset.catalog, Clicks(dataset)
    numbers = clicks.users if users is None else dataset.users(dict.fromkeys(users))
    model, drift = run.adapted(dataset)
    scorer, new = Scorer(model), np.zeros(catalog.n_items + 1, dtype=bool)
    new = new if drift is None else drift.new
    wanted = np.arange(1, catalog.n_items + 1) if candidates is None else np.unique(candidates)
    lengths, best, scores = [], [], []
    for user in tqdm(numbers, desc="recommend", unit=" users"):
        asked = wanted[~np.isin(wanted, clicks.seen(user))]
        score = scorer(clicks.history(user), asked, clicks.codes(user))
        order = np.argsort(-score, kind="stable")[:top]
        lengths.append(len(order))
        best.append(asked[order])
        scores.append(score[order])
    items = np.concatenate([np.zeros(0, dtype=np.int64), *best])
    probability = np.concatenate([np.zeros(0, dtype=np.float32), *scores])
    return pd.DataFrame(
        {
            "user_id": np.repeat(dataset.user_names(numbers), lengths),
            "rank": np.concatenate([np.zeros(0, dtype=np.int64), *map(_ranks, lengths)]),
            "item_id": catalog.ids[items],
            "title": catalog.titles[items],
            "score": run.corrected(probability),
            "new": new[items],
        }
    )


def read_candidates(path: Path, catalog: Catalog) -> np.ndarray:
    """Numbers of the items that a file names, int64 [n], each once.

    It has an id a line, or is CSV or Parquet with a column item_id. Raises DataError for a file
    that cannot be read, is empty, or names an unknown item.
    """
    try:
        if path.suffix == ".parquet":
            column = parquet.open_parquet(path).read(["item_id"]).column(0)
            ids = parquet.texts(column.cast("string"), path, "item_id").to_pylist()
        else:
            text = path.read_text(encoding="utf-8-sig")
            header = text.partition("\n")[0].split(",")
            if "item_id" in (name.strip(' "\r') for name in header):
                table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
                ids = table["item_id"].tolist()
            else:
                ids = [line.strip() for line in text.splitlines()]
    except (OSError, ValueError, KeyError, LookupError) as error:
        raise DataError(
            f"{path} cannot be read ({first_line(error)}): expected an item id a line, or CSV or "
            "Parquet with a column item_id."
        ) from error
    ids = [one for one in dict.fromkeys(ids) if one]
    if not ids:
        raise DataError(f"{path} names no items, expected an id a line: leave --candidates out.")
    return catalog.numbers(ids)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write recommendations as CSV or Parquet, whole or not at all."""
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False, compression="zstd")
        else:
            table.to_csv(temporary, index=False)


def _ranks(length: int) -> np.ndarray:
    return np.arange(1, length + 1)
