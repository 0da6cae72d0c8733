"""Erroneous entries of a dataset: their kinds, errors.parquet, and a dataset without them.

errors.parquet has a row for each finding: what (the title or cover of an item, the whole item, or a
user), id (the user's own), kind, score, excluded. A person may change `excluded`, and add rows of
kinds of her own. Only what is excluded there, of the kinds that a training names, is left out.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr.data import parquet, schema
from mmctr.data.catalog import FEATURES, Catalog, without
from mmctr.errors import ConfigError, DataError, first_line
from mmctr.files import atomic_path

if TYPE_CHECKING:
    from mmctr.data.dataset import Dataset

WHAT = ("title", "cover", "item", "user")
ALL = "all"
FORM = pa.schema(
    [
        ("what", pa.string()),
        ("id", pa.string()),
        ("kind", pa.string()),
        ("score", pa.float64()),
        ("excluded", pa.bool_()),
    ]
)
KEY = ["what", "id", "kind"]


@dataclass(frozen=True)
class Kind:
    """A kind of erroneous entries, and how it is told.

    score: of the evidence, a number for each item by row (padding included) or for each user, NaN
    where it does not apply; or the reason why it cannot be told. What scores `threshold` or more
    is found. reason: why the threshold is there. false_alarms: those to expect. also: of the
    evidence, what else is to be said of the kind.
    """

    name: str
    what: str
    score: Callable[[Any], np.ndarray | str]
    threshold: float
    reason: str
    false_alarms: str
    also: Callable[[Any], str] | None = None


@dataclass(frozen=True)
class Exclusion:
    """What is left out of training, by the user's own ids, and the kinds that were asked for.

    titles, covers: items whose title, whose cover is unknown; of an erroneous item both are. users:
    those whose rows are left out.
    """

    kinds: tuple[str, ...]
    titles: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    users: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path, kinds: Iterable[str]) -> "Exclusion":
        """What errors.parquet of a folder excludes of some kinds ("all": of every one).

        Raises DataError if there is no such file or it is damaged, ConfigError for a kind that was
        neither looked for nor added by hand.
        """
        table, kinds = read_errors(folder), tuple(dict.fromkeys(kinds))
        known = [*dict.fromkeys([*looked_for(folder), *table["kind"]])]
        for kind in kinds:
            if kind not in (*known, ALL):
                raise ConfigError(
                    f"Found {kind!r} to exclude, expected {ALL} or kinds of {errors_file(folder)} "
                    f"by comma: {parquet.listed(known)}."
                )
        chosen = table[table["excluded"] & (table["kind"].isin(kinds) | (ALL in kinds))]
        ids = {
            name: tuple(sorted(set(chosen.loc[chosen["what"].isin(whats), "id"])))
            for name, whats in (
                ("titles", ("title", "item")),
                ("covers", ("cover", "item")),
                ("users", ("user",)),
            )
        }
        return cls(kinds, **ids)

    @classmethod
    def stated(cls, value: dict[str, Any]) -> "Exclusion":
        """As `as_json` has stated it."""
        return cls(**{name: tuple(map(str, ids)) for name, ids in value.items()})

    def as_json(self) -> dict[str, list[str]]:
        """As JSON has it: `stated` reads it."""
        return {name: list(ids) for name, ids in asdict(self).items()}

    def of_catalog(self, catalog: Catalog) -> Catalog:
        """The catalog with what is excluded unknown; as it is if it has an exclusion already.

        Unknown features are the mean of the known ones, which strategies map to zero: nothing is
        said of the item. A ready-made embedding knows neither title nor cover alone, so that an
        item that lacks one of them has none. Titles and covers stay, to be shown.
        """
        if catalog.exclusion is not None:
            return catalog
        rows = {name: _rows_of(catalog, getattr(self, name)) for name in ("titles", "covers")}
        changed = {
            name: without(features, rows[which])
            for name, which in zip(FEATURES, ("titles", "covers"), strict=True)
            if (features := getattr(catalog, name)) is not None and len(rows[which])
        }
        unknown = np.union1d(rows["titles"], rows["covers"])
        return replace(catalog, **changed, exclusion=self, unknown=unknown)

    def of(self, dataset: "Dataset") -> "Dataset":
        """The dataset without what is excluded, for training; as it is if it has an exclusion.

        The rows of excluded users leave train. Valid and test keep all rows.
        """
        if dataset.catalog.exclusion is not None:
            return dataset
        parts = {"catalog": self.of_catalog(dataset.catalog)}
        if self.users:
            train = self._kept(dataset, dataset.train)
            parts["splits"] = dataset.splits | {"train": train}
            if dataset.known is not None:
                parts["known"] = self._kept(dataset, dataset.known)
        changed = replace(dataset, **parts)
        # That of the files, which are the same.
        vars(changed)["fingerprint"] = dataset.fingerprint
        return changed

    def in_words(self) -> str:
        """What is left out, as a part of a sentence."""
        counts = {name: len(getattr(self, name)) for name in ("titles", "covers", "users")}
        counted = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        return f"{', '.join(self.kinds)}: {counted}"

    def _kept(self, dataset: "Dataset", rows: Any) -> Any:
        users, place = np.unique(rows.user, return_inverse=True)
        left_out = pd.Index(dataset.user_names(users)).isin(self.users)
        kept = np.flatnonzero(~left_out[place])
        if not len(kept):
            raise ConfigError(
                f"All {len(rows):,} train rows of {dataset.folder} are of excluded users, expected "
                f"some to learn from: exclude fewer kinds, or keep users in {schema.ERRORS}."
            )
        return rows.select(kept)


def excluding(dataset: "Dataset", kinds: str | None) -> "Dataset":
    """A dataset without what its errors.parquet excludes of these kinds, named by comma.

    As it is for None or nothing. Raises as `Exclusion.read` does.
    """
    names = [name.strip() for name in (kinds or "").split(",") if name.strip()]
    return Exclusion.read(dataset.folder, names).of(dataset) if names else dataset


def _rows_of(catalog: Catalog, ids: tuple[str, ...]) -> np.ndarray:
    """Row numbers of those items that the catalog has, int64."""
    return 1 + np.flatnonzero(pd.Index(catalog.ids[1:]).isin(ids)) if ids else np.zeros(0, int)


def errors_file(folder: Path) -> Path:
    """Where a dataset's erroneous entries are kept."""
    return folder / schema.ERRORS


def errors_hash(folder: Path) -> str | None:
    """SHA-256 of errors.parquet; None without one."""
    path = errors_file(folder)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def read_errors(folder: Path) -> pd.DataFrame:
    """errors.parquet: what, id, kind (text), score, excluded (bool); DataError if it is unfit."""
    path = errors_file(folder)
    if not path.is_file():
        raise DataError(f"{folder} has no {schema.ERRORS}: run mmctr data clean {folder} first.")
    table = _columns(path, parquet.open_parquet(path))
    for column in ("what", "id", "kind", "excluded"):
        missing = table[column].isna().to_numpy()
        parquet.refuse(missing, path, column, table[column], "a value")
    parquet.refuse(
        ~table["what"].isin(WHAT).to_numpy(), path, "what", table["what"], f"one of {WHAT}"
    )
    return table.astype({"excluded": bool})


def looked_for(folder: Path) -> dict[str, str]:
    """The kinds that errors.parquet was written for, also those that nothing was found of, and
    the reason that was given for each; empty if the file does not say.
    """
    said = parquet.metadata(errors_file(folder), schema.ERROR_KINDS)
    try:
        return {str(kind): str(reason) for kind, reason in json.loads(said).items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


def write_errors(folder: Path, found: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Write findings into errors.parquet and keep a person's decisions; the table as written.

    found: what, id, kind, score. kinds: those that were looked for, and the reason of each. What
    was found before stays as it was decided; what she keeps stays there even if it is found no
    more, and so do her own rows: those of other kinds, and those without a score.
    """
    found = found.assign(excluded=True)
    if errors_file(folder).is_file():
        before = read_errors(folder)
        decided = found[KEY].merge(before.drop_duplicates(KEY), on=KEY, how="left")["excluded"]
        found["excluded"] = [True if pd.isna(one) else bool(one) for one in decided]
        hers = ~before["kind"].isin([*kinds]) | ~before["excluded"] | before["score"].isna()
        there = pd.MultiIndex.from_frame(found[KEY])
        again = pd.MultiIndex.from_frame(before[KEY]).isin(there)
        kept = before[hers & ~again]
        found = pd.concat([found, kept], ignore_index=True) if len(kept) else found
    save_errors(folder, found, kinds)
    return found


def save_errors(folder: Path, table: pd.DataFrame, kinds: Mapping[str, str] | None = None) -> None:
    """Write errors.parquet as it is, whole or not at all; kinds: as of `write_errors`, if new."""
    kinds = looked_for(folder) if kinds is None else kinds
    content = pa.Table.from_pandas(table[FORM.names], FORM, preserve_index=False)
    content = content.replace_schema_metadata({schema.ERROR_KINDS: json.dumps(dict(kinds))})
    with atomic_path(errors_file(folder)) as temporary:
        pq.write_table(content, temporary)


def _columns(path: Path, file: pq.ParquetFile) -> pd.DataFrame:
    """The columns in their types, whatever a person's tool has made of them."""
    names = file.schema_arrow.names
    missing = [name for name in FORM.names if name not in names]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]}, only {parquet.listed(names)}: "
            "restore it, or delete the file and run mmctr data clean again."
        )
    try:
        table = file.read(FORM.names)
    except (pa.ArrowException, OSError) as error:
        raise parquet.unreadable(path, first_line(error)) from error
    columns = {}
    for field in FORM:
        try:
            columns[field.name] = table[field.name].cast(field.type).to_pandas()
        except pa.ArrowException as error:
            expected = {"score": "numbers", "excluded": "true or false"}.get(field.name, "text")
            raise parquet.unfit(path, field.name, None, first_line(error), expected) from error
    return pd.DataFrame(columns)
