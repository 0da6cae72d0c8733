"""Erroneous entries of a dataset, found: items by their titles and covers, users by their clicks.

One table, KINDS: each kind with its score, its threshold and the reason for it. Thresholds are
chosen by what they mean, not by how many entries they find. Nothing is changed: `find_errors` says
what it found, `clean` keeps it in errors.parquet, where a person decides.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from mmctr.content import titles
from mmctr.content.covers import MISSING, CoverFacts
from mmctr.content.evidence import MANY, Evidence, constant, shared
from mmctr.content.lookalikes import FLAT
from mmctr.content.mismatch import LEAST, SURE
from mmctr.data import click_errors
from mmctr.data.audit import CONSTANT
from mmctr.data.click_errors import ClickLog
from mmctr.data.dataset import Dataset
from mmctr.data.erroneous import Kind, errors_file, looked_for, read_errors, write_errors
from mmctr.files import alone

DARK = 0.85  # of white, that 19 of 20 pixels lack
SAME_TEXT = 0.95  # cosine of centred text features of the same words, written in another way
COLUMNS = ["kind", "what", "count", "threshold", "reason", "false alarms"]
NO_COVERS = "there are no covers"


def _of_covers(name: str):
    """A measure of covers as a score, made of it by a function."""

    def score(function):
        def told(evidence: Evidence) -> np.ndarray | str:
            facts = evidence.covers
            return NO_COVERS if facts is None else function(getattr(facts, name), facts)

        return told

    return score


@_of_covers("reason")
def _unreadable(reason: np.ndarray, facts: CoverFacts) -> np.ndarray:
    return ((reason != "") & (reason != MISSING)).astype(float)


@_of_covers("flat")
def _flat(flat: np.ndarray, facts: CoverFacts) -> np.ndarray:
    return flat


@_of_covers("bright")
def _dark(bright: np.ndarray, facts: CoverFacts) -> np.ndarray:
    return 1 - bright


@_of_covers("sharp")
def _blurred(sharp: np.ndarray, facts: CoverFacts) -> np.ndarray:
    told = (facts.flat < FLAT) & (1 - facts.bright < DARK)
    return np.where(told, -np.log10(sharp + 1e-9), np.nan)


@_of_covers("aspect")
def _shape(aspect: np.ndarray, facts: CoverFacts) -> np.ndarray:
    return np.abs(np.log2(aspect / np.nanmedian(aspect))) if facts.read.any() else aspect


def _placeholder(evidence: Evidence) -> np.ndarray | str:
    """How many different titles share each picture."""
    if evidence.covers is None:
        return NO_COVERS
    pairs = pd.DataFrame({"picture": evidence.picture, "words": evidence.words})[~evidence.blank]
    sharing = pairs.groupby("picture")["words"].nunique()
    return sharing.reindex(evidence.picture).to_numpy(float)


def _twice(evidence: Evidence) -> np.ndarray | str:
    return NO_COVERS if evidence.covers is None else evidence.twice


def _repeated(evidence: Evidence) -> np.ndarray:
    """How many items have each title; NaN for the one of them that it fits best."""
    own = -1 - np.arange(len(evidence.titles))
    series = titles.boilerplate(evidence.titles) >= titles.SERIES
    aside = evidence.blank | series | (evidence.twice >= SAME_TEXT)
    odds = np.zeros(len(own)) if evidence.odds is None else np.nan_to_num(evidence.odds)
    counts = np.full(len(own), np.nan)
    for items in shared(np.where(aside, own, evidence.words)):
        counts[items] = len(items)
        counts[items[odds[items].argmin()]] = np.nan
    return counts


def _mismatch(evidence: Evidence) -> np.ndarray | str:
    """How much text and image are at odds; NaN where another kind says which of them is wrong."""
    if evidence.odds is None:
        return f"fewer than {LEAST} items have features of both text and image"
    odds = evidence.odds.copy()
    for kind in KINDS:
        if kind.what in ("title", "cover"):
            score = kind.score(evidence)
            if not isinstance(score, str):
                odds[score >= kind.threshold] = np.nan
    return odds


def _constant_features(medium: str):
    def score(evidence: Evidence) -> np.ndarray | str:
        features = getattr(evidence.dataset.catalog, f"{medium}_features")
        return f"there are no {medium} features" if features is None else constant(features) * 1.0

    return score


KINDS: tuple[Kind, ...] = (
    Kind(
        "unreadable",
        "cover",
        _unreadable,
        1,
        "the file is empty, damaged or no picture",
        "formats that Pillow was built without",
    ),
    Kind(
        "placeholder",
        "cover",
        _placeholder,
        MANY,
        "different titles with the same picture (hash, colours and features agree)",
        "a series, or a label's products in one sleeve",
    ),
    Kind(
        "flat",
        "cover",
        _flat,
        FLAT,
        "share of pixels of one colour: what is left is smaller than a line of text",
        "minimal designs, such as a black album",
    ),
    Kind(
        "dark",
        "cover",
        _dark,
        DARK,
        "19 of 20 pixels are darker than 15% of white: nothing is seen at the size of a list",
        "night scenes with a small light",
    ),
    Kind(
        "blurred",
        "cover",
        _blurred,
        1.3,
        "powers of ten less detail than contrast, as a blur by a 100th of the width leaves",
        "soft light and plain grounds; paintings of few shapes",
    ),
    Kind(
        "shape",
        "cover",
        _shape,
        1.5,
        "doublings of width by height from the median cover: 2.8 times as wide or as high",
        "catalogs of posters and banners side by side",
    ),
    Kind(
        "untitled",
        "title",
        lambda evidence: titles.says_nothing(evidence.titles),
        1,
        "no letter or digit, or a word that stands for a missing title",
        "an item that is really called so",
    ),
    Kind(
        "boilerplate",
        "title",
        lambda evidence: titles.boilerplate(evidence.titles),
        titles.SERIES,
        "items with this title, numbers aside",
        "long series whose parts have numbers only",
    ),
    Kind(
        "language",
        "title",
        lambda evidence: evidence.foreign,
        0.5,
        "share of its triples of letters that hardly any other title has",
        "names and invented words; small catalogs, in which every word is rare",
    ),
    Kind(
        "repeated",
        "title",
        _repeated,
        2,
        "items with this very title, the one aside that it fits best",
        "remakes, and names that many share",
    ),
    Kind(
        "twice",
        "item",
        _twice,
        SAME_TEXT,
        "likeness of the title to that of an earlier item with the same picture",
        "editions and sizes that a shop sells as items of their own",
    ),
    Kind(
        "mismatch",
        "item",
        _mismatch,
        SURE,
        "nats: text and image are a thousand times likelier side by side by chance",
        "what is unlike all else in the catalog",
    ),
    Kind(
        "constant-text",
        "title",
        _constant_features("text"),
        1,
        f"features are zero, or vary by less than {CONSTANT:g} of their size",
        "none that we know",
    ),
    Kind(
        "constant-image",
        "cover",
        _constant_features("image"),
        1,
        f"features are zero, or vary by less than {CONSTANT:g} of their size",
        "items without a cover, where zero says just that",
    ),
    *click_errors.KINDS,
)


def find_errors(dataset: Dataset) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is found of each kind, and the table of kinds.

    First: what, id (the user's own), kind, score; a row a finding, the worst of each kind first.
    Second: kind, what, count, threshold, reason, false alarms; where a kind cannot be told, count
    is missing and the reason says why.
    """
    found, lines = [], []
    items, users = Evidence(dataset), ClickLog(dataset)
    for kind in tqdm(KINDS, desc="errors", unit="kind"):
        is_user = kind.what == "user"
        score = kind.score(users if is_user else items)
        line = {"kind": kind.name, "what": kind.what, "count": None, "threshold": kind.threshold}
        if isinstance(score, str):
            lines.append(line | {"reason": f"not told: {score}", "false alarms": ""})
            continue
        score = np.array(score, dtype=float)
        if not is_user:
            score[0] = np.nan  # padding
        rows = np.flatnonzero(score >= kind.threshold)
        rows = rows[np.argsort(-score[rows], kind="stable")]
        ids = dataset.user_names(users.users[rows]) if is_user else dataset.catalog.ids[rows]
        part = {"what": kind.what, "id": ids, "kind": kind.name, "score": score[rows]}
        found.append(pd.DataFrame(part, columns=["what", "id", "kind", "score"]))
        reason = kind.reason
        if kind.also is not None:
            reason += f"; {kind.also(users if is_user else items)}"
        line |= {"count": len(rows), "reason": reason, "false alarms": kind.false_alarms}
        lines.append(line)
    table = pd.DataFrame(lines, columns=COLUMNS).astype({"count": "Int64"})
    # Of kinds without a finding the ids have another type, which the whole would take.
    return pd.concat(found, ignore_index=True).astype({"id": str}), table


def clean(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find erroneous entries of a folder's dataset and write them into errors.parquet.

    A person's decisions there are kept. Returns it, with its column excluded, and the table of
    kinds.
    """
    dataset = Dataset.load(folder)
    with alone(dataset.folder, "being cleaned by"):
        found, table = find_errors(dataset)
        return write_errors(dataset.folder, found, reasons(table)), table


def reasons(table: pd.DataFrame) -> dict[str, str]:
    """The reason of each kind of a table of kinds that could be told."""
    told = table[table["count"].notna()]
    return dict(zip(told["kind"], told["reason"], strict=True))


def errors_of(dataset: Dataset) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A dataset's errors.parquet and the table of kinds; found now, and not kept, without one."""
    if not errors_file(dataset.folder).is_file():
        found, table = find_errors(dataset)
        return found.assign(excluded=True), table
    errors, told = read_errors(dataset.folder), looked_for(dataset.folder)
    counts = errors["kind"].value_counts()
    lines = [
        (
            one.name,
            one.what,
            counts.get(one.name, 0),
            one.threshold,
            told.get(one.name, one.reason),
            one.false_alarms,
        )
        for one in KINDS
        if one.name in told or one.name in counts
    ]
    hers = errors[~errors["kind"].isin([kind.name for kind in KINDS])].drop_duplicates("kind")
    for line in hers.itertuples(index=False):
        lines.append((line.kind, line.what, int(counts[line.kind]), None, "found by a person", ""))
    table = pd.DataFrame(lines, columns=COLUMNS)
    return errors, table.astype({"count": "Int64", "threshold": float})


def in_words(table: pd.DataFrame) -> str:
    """The table of kinds as lines for a terminal."""
    lines = []
    for kind, what, count, threshold, reason, false_alarms in table.itertuples(index=False):
        if pd.isna(count):
            lines.append(f"{'-':>8} {kind:<15} {what:<6} {reason}")
        else:
            lines.append(f"{count:>8,} {kind:<15} {what:<6} at least {threshold:g}: {reason}")
            lines.append(f"{'':<31} false alarms to expect: {false_alarms}")
    return "\n".join(lines)
