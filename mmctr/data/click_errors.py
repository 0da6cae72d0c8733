"""Users whose clicks no person makes: scripts, copies, clocks that are wrong, labels that lie.

A score for each user; the table of kinds at the end says what is too much, and why. A rare click is
no error: whoever clicks what few click is judged by how rare it is expected to be.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from mmctr.data import confident, parquet, schema
from mmctr.data.dataset import Dataset
from mmctr.data.erroneous import Kind
from mmctr.data.impressions import Impressions, joined, slice_positions
from mmctr.data.rates import field_codes

FOLDS = 5
SAMPLE = 1_000_000  # train rows that a model of the fields is fitted to
SECOND = 1_000_000_000  # nanoseconds
SWEEP = 10  # clicks in the order of the catalog
IN_A_ROW = 8  # clicks that two people hardly ever share
PRIOR = 0.2  # the variance of one row where a quarter is clicked
NO_TIMES = "the rows have no times"


@dataclass(frozen=True)
class ClickLog:
    """What a dataset knows of its users' clicks; users: int64 [u], rising."""

    dataset: Dataset

    @cached_property
    def rows(self) -> Impressions:
        """The rows of all splits that have labels."""
        return joined([rows for rows in self.dataset.splits.values() if rows.label is not None])

    @cached_property
    def users(self) -> np.ndarray:
        return np.unique(self.rows.user)

    @cached_property
    def place(self) -> np.ndarray:
        """Where each row's user stands in `users`, int64 [n]."""
        return np.searchsorted(self.users, self.rows.user)

    @cached_property
    def longest(self) -> Impressions:
        """The row with the longest history of each user, [u]."""
        order = np.lexsort((self.rows.history_length, self.rows.user))
        last = np.flatnonzero(np.diff(self.rows.user[order], append=-1) != 0)
        return self.rows.select(order[last])

    @cached_property
    def clicks(self) -> tuple[np.ndarray, np.ndarray]:
        """Users' places and times in nanoseconds of clicks, by user and time; int64 each."""
        clicked = self.rows.label == 1
        user, time = self.place[clicked], self.rows.time[clicked]
        order = np.lexsort((time, user))
        return user[order], time[order]

    @cached_property
    def clock(self) -> int:
        """The finest step of time that the log tells, in nanoseconds."""
        return int(np.gcd.reduce(np.diff(np.unique(self.rows.time)), initial=0)) or 1

    @cached_property
    def probability(self) -> np.ndarray | None:
        """Of a click for each train row, by a model fitted to other users' rows."""
        return _by_other_users(self)


def most_within(log: ClickLog, seconds: int) -> np.ndarray | str:
    """The most clicks of each user within so many seconds; or why it cannot be told."""
    if log.rows.time is None:
        return NO_TIMES
    if log.clock > seconds * SECOND:
        return f"times are told in steps of {log.clock // SECOND:,} seconds"
    user, time = log.clicks
    counts = np.zeros(len(log.users))
    if len(user):
        # Users one after another on one line of time, too far apart to meet.
        millis, gap = (time - time.min()) // 1_000_000, 1000 * seconds + 1
        starts = np.flatnonzero(np.diff(user, prepend=-1))
        first = np.repeat(starts, np.diff(np.append(starts, len(user))))
        spans = np.append(millis[starts[1:] - 1], millis[-1]) - millis[starts] + gap
        line = millis - millis[first]
        line += np.repeat(np.cumsum(spans) - spans, np.diff(np.append(starts, len(user))))
        upto = np.searchsorted(line, line + 1000 * seconds)  # what comes a whole step later is out
        np.maximum.at(counts, user, upto - np.arange(len(user)))
    return counts


def sweep(log: ClickLog) -> np.ndarray:
    """How far each user's clicks sweep the catalog; 1 is half of it, or SWEEP in its order."""
    rows, n_items = log.longest, log.dataset.catalog.n_items
    lengths = rows.history_length
    items = rows.history_items[slice_positions(rows.history_start, lengths)].astype(np.int64)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    clicked = log.rows.label == 1
    both = np.concatenate([owner, log.place[clicked]]) * (n_items + 1)
    both += np.concatenate([items, log.rows.target[clicked]])
    share = np.bincount(np.unique(both) // (n_items + 1), minlength=len(lengths)) / max(n_items, 1)
    longest = np.zeros(len(lengths))
    for step in (1, -1):
        follows = np.zeros(len(items), dtype=bool)
        follows[1:] = (np.diff(items) == step) & (np.diff(owner) == 0)
        breaks = np.append(np.flatnonzero(~follows), len(items))
        np.maximum.at(longest, owner[breaks[:-1]], np.diff(breaks))
    return np.maximum(2 * share, longest / SWEEP)


def copied(log: ClickLog) -> np.ndarray:
    """How many clicks in a row each user's history shares with that of an earlier user."""
    rows = log.longest
    lengths, counts = rows.history_length, np.zeros(len(rows))
    items = rows.history_items[slice_positions(rows.history_start, lengths)]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    if len(items) < IN_A_ROW:
        return counts
    mixed = pd.util.hash_array(items)
    window = np.zeros(len(items) - IN_A_ROW + 1, dtype=np.uint64)
    for place in range(IN_A_ROW):  # a polynomial of the items, modulo 2^64
        window = window * np.uint64(0x9E3779B97F4A7C15) + mixed[place:][: len(window)]
    whole = owner[: len(window)] == owner[IN_A_ROW - 1 :]
    found = pd.DataFrame({"window": window, "user": owner[: len(window)]})[whole]
    found = found.drop_duplicates()  # the rows are by user, so that the first is the earliest
    later = found.loc[found["window"].duplicated(), "user"]
    shared = np.bincount(later, minlength=len(rows))
    return np.where(shared > 0, shared + IN_A_ROW - 1.0, 0.0)


def too_early(log: ClickLog) -> np.ndarray | str:
    """How many clicks of each user are on items that were not there yet."""
    path = schema.find_file(log.dataset.folder, "item_feature.parquet")
    table = parquet.read_columns(path, ["item_id"], [schema.AVAILABLE]) if path else None
    if table is None or schema.AVAILABLE not in table.column_names:
        return f"the catalog does not say when items came (column {schema.AVAILABLE})"
    if log.rows.time is None:
        return NO_TIMES
    available = np.full(log.dataset.catalog.n_items + 1, np.iinfo(np.int64).min)
    since = table[schema.AVAILABLE]
    known = since.is_valid().to_numpy()
    available[table["item_id"].to_numpy()[known]] = since.drop_null().to_numpy()
    rows = log.rows
    # A time is rounded down: a click of a day may be later on that day.
    early = (rows.label == 1) & (rows.time + log.clock <= available[rows.target])
    return np.bincount(log.place[early], minlength=len(log.users)).astype(float)


def unlike_labels(log: ClickLog) -> np.ndarray | str:
    """How much less likely each user's labels are than labels that follow the fields.

    In standard deviations of what a plain model (boosted trees of popularity, history and fields,
    fitted to other users) expects of the log-likelihood of these very rows. Under calibrated
    probabilities that is about normal, however rare clicks are; confident learning counts a click
    as an error because its probability is low.
    """
    if log.dataset.negatives_from == "sampled":
        return "negatives were drawn by the import, so that they are no labels"
    if log.probability is None:
        return "train has too few users or rows"
    rows, user = log.dataset.train, np.searchsorted(log.users, log.dataset.train.user)
    p = log.probability.clip(1e-4, 1 - 1e-4)
    odds = np.log(p / (1 - p))
    # -log p(label) minus its expectation, and its variance.
    surplus = (p - rows.label) * odds
    size = len(log.users)
    spread = np.bincount(user, p * (1 - p) * odds**2, size)
    # An odd row where odds are even says nothing; PRIOR keeps few rows from saying much.
    return np.bincount(user, surplus, size) / np.sqrt(spread + PRIOR)


def _by_other_users(log: ClickLog) -> np.ndarray | None:
    """As `ClickLog.probability`; None where there are too few users or only one label."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    dataset, rows = log.dataset, log.dataset.train
    users, place = np.unique(rows.user, return_inverse=True)
    rng = np.random.default_rng(0)
    fold = rng.permutation(len(users))[place] % FOLDS
    clicks = dataset.known_clicks(rows) - rows.label * (rows.time is None)
    columns = [clicks, rows.history_length, *dataset.levels(rows).T]
    columns += [codes for _, codes in field_codes(dataset, rows)]
    features = np.stack(columns, axis=1).astype(np.float32)
    probability = np.zeros(len(rows))
    for part in range(FOLDS):
        others = np.flatnonzero(fold != part)
        if len(users) < 10 * FOLDS or len(np.unique(rows.label[others])) < 2:
            return None
        others = rng.permutation(others)[:SAMPLE]
        model = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=15, random_state=0)
        model.fit(features[others], rows.label[others])
        asked = fold == part
        if asked.any():
            probability[asked] = model.predict_proba(features[asked])[:, 1]
    return probability


KINDS = (
    Kind(
        "rate",
        "user",
        lambda log: most_within(log, 60),
        60,
        "clicks within a minute: nobody looks at an item a second for a whole minute",
        "people who tick a list of what they know already; imports that stamp a whole list at once",
    ),
    Kind(
        "burst",
        "user",
        lambda log: most_within(log, 1),
        10,
        "clicks within a second: no hand is as quick",
        "pages that send all ticks at once; clocks that are coarser than they say",
    ),
    Kind(
        "sweep",
        "user",
        sweep,
        1,
        f"half of the catalog, or {SWEEP} items in its order, which taste does not follow",
        "catalogs of few items; catalogs sorted as a page shows them, or by series",
    ),
    Kind(
        "copy",
        "user",
        copied,
        2 * IN_A_ROW,
        f"clicks that an earlier user made too, in the same order, in runs of at least {IN_A_ROW}",
        "one person with two accounts; catalogs of few items; lists that many work through",
    ),
    Kind(
        "too-early",
        "user",
        too_early,
        1,
        "clicks before the item came: nobody can have seen it",
        "items that were listed anew with a later date; clocks in other zones",
    ),
    Kind(
        "labels",
        "user",
        unlike_labels,
        3.5,
        "standard deviations: one user in 4,000, if the fields told all there is to know",
        "people of a taste that no field tells, so that some are found in any log",
        lambda log: confident.in_words(log.dataset.train.label, log.probability),
    ),
)
