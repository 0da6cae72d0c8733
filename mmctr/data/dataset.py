"""Dataset = Catalog + Impressions (train, valid, test), loaded from the challenge's files."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from mmctr.bars import bar_if_long
from mmctr.data import cache, names, parquet, schema
from mmctr.data.address import Address
from mmctr.data.catalog import Catalog, catalog_of, item_arrays, load_catalog
from mmctr.data.columns import Column
from mmctr.data.erroneous import Exclusion
from mmctr.data.fields import Field, load_fields, owner_codes, require_fields
from mmctr.data.fingerprint import combined, file_hashes, files_fingerprint
from mmctr.data.impressions import (
    Impressions,
    history_hashes,
    load_impressions,
    row_blocks,
    with_truth,
)
from mmctr.data.popularity import Popularity
from mmctr.data.wording import Wording, wording_of
from mmctr.errors import DataError
from mmctr.files import existing_folder


@dataclass(frozen=True)
class Dataset:
    """A folder in the challenge's files, loaded and validated.

    row_fields: those whose codes rows have, the users', then the context's. known: the rows whose
    clicks are known, where train holds only the newest of them.
    """

    folder: Path
    catalog: Catalog
    splits: dict[str, Impressions]
    row_fields: tuple[Field, ...] = ()
    known: Impressions | None = None

    @classmethod
    def load(cls, folder: Path | str, fields: tuple[Field, ...] | None = None) -> "Dataset":
        """Read and validate a folder; DataError names the file, column and row at fault.

        fields: with the vocabularies to code its values by, as of a run; its own if not given.
        Large arrays are memory-mapped from the folder's cache once their files were read.
        """
        folder = existing_folder(folder)
        hashes, own = file_hashes(folder), load_fields(folder)
        fields = own if fields is None else fields
        require_fields(fields, own, folder)
        fingerprint = combined(hashes)
        cached = cache.read(folder, fingerprint) if fingerprint and fields == own else None
        parts = cached or _read_parts(folder, fields)
        dataset = cls._of(folder, parts, fields)
        # Files that changed while they were read must not be remembered by what they were before,
        # and the cache holds codes of the folder's own vocabularies.
        pays = not cached and fields == own and (_is_elsewhere(folder) or cache.pays(parts))
        now = file_hashes(folder) if pays or not fingerprint else hashes
        if not fingerprint:
            hashes = {name: before or now[name] for name, before in hashes.items()}
            fingerprint = combined(hashes)
        if not fingerprint:
            raise DataError(
                f"{folder} has a split that changed while it was read: load it again once it is "
                "complete."
            )
        if pays and now == hashes:
            cache.write(folder, fingerprint, parts)
            # What lies in files without a name need not lie on the disk twice from now on.
            dataset = cls._of(folder, cache.read(folder, fingerprint) or parts, fields)
        # That of what was loaded, whatever the files hold when somebody asks for it.
        vars(dataset)["fingerprint"] = fingerprint
        return dataset

    @classmethod
    def _of(cls, folder: Path, parts: cache.Parts, fields: tuple[Field, ...]) -> "Dataset":
        """A dataset by its arrays."""
        catalog = catalog_of(folder, parts["catalog"], fields)
        splits = {name: Impressions(**parts[name]) for name in schema.SPLITS if name in parts}
        row_fields = tuple(field for field in fields if field.owner != "item")
        return cls(folder, catalog, with_truth(folder, splits), row_fields)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def simulated(self) -> bool:
        """Whether true click probabilities are known, as only simulated data can."""
        return self.splits["train"].probability is not None

    @property
    def exclusion(self) -> Exclusion | None:
        """The erroneous entries that were left out of it; None if none were."""
        return self.catalog.exclusion

    @property
    def fields(self) -> tuple[Field, ...]:
        """What else is known of items, users and the context, in this order."""
        return (*self.catalog.fields, *self.row_fields)

    @property
    def train(self) -> Impressions:
        """The rows to learn from."""
        return self.splits["train"]

    @property
    def valid(self) -> Impressions:
        """The rows to choose by."""
        return self.splits["valid"]

    def split(self, name: str) -> Impressions:
        """One split by name; DataError lists those that exist."""
        if name not in self.splits:
            raise DataError(
                f"{self.folder} has no split {name!r}: choose one of {', '.join(self.splits)}."
            )
        return self.splits[name]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the contents of the dataset's parquet files, its first 16 digits."""
        return files_fingerprint(self.folder)

    @cached_property
    def negative_sampling(self) -> str | None:
        """How mmctr data import drew the train negatives; None if it did not."""
        path = schema.find_file(self.folder, "train.parquet")
        sampling = parquet.metadata(path, schema.NEGATIVES).decode(errors="replace")
        known = get_args(schema.Sampling)
        if sampling not in ("", *known):
            raise DataError(
                f"{path} has metadata {schema.NEGATIVES.decode()} {sampling!r}, expected one of "
                f"{', '.join(known)}: import the log again."
            )
        return sampling or None

    @cached_property
    def negatives_from(self) -> schema.NegativesFrom:
        """Where negatives come from, as dataset.json says: "unknown" if there is none."""
        path = self.folder / schema.ABOUT
        otherwise = "shown" if self.simulated else "unknown"
        if not path.is_file():
            return otherwise
        said = schema.about(self.folder).get("negatives")
        if said is None:
            return "sampled" if self.negative_sampling else otherwise
        known = get_args(schema.NegativesFrom)
        if said not in known:
            raise DataError(
                f"{path} has negatives {said!r}, expected one of {', '.join(known)}: import it "
                "again."
            )
        return said

    @cached_property
    def negatives_per_click(self) -> int | None:
        """How many negatives the import drew for each click of train; None if it drew none."""
        rate = float(self.train.label.mean())
        return round(1 / rate) - 1 if self.negatives_from == "sampled" and rate else None

    @property
    def wording(self) -> Wording:
        """What rows, labels and rates are called, by where negatives come from."""
        return wording_of(self.negatives_from, self.negatives_per_click)

    @cached_property
    def encoders(self) -> dict[str, dict[str, object]]:
        """What is known of the encoders that made the features, by column; mostly nothing."""
        path = schema.find_file(self.folder, "item_feature.parquet")
        found = parquet.metadata(path, schema.ENCODERS, b"{}")
        try:
            return dict(json.loads(found))
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path} has damaged metadata {schema.ENCODERS.decode()} ({error}): "
                "extract the features again."
            ) from error

    def user_names(self, users: np.ndarray) -> np.ndarray:
        """What the user's own tables call users, int [n]: text, object [n]."""
        return names.plain(users) if self._user_ids is None else self._user_ids.of(users)

    def users(self, ids: Iterable[str]) -> np.ndarray:
        """The numbers of users by what the user's own tables call them, int64 [n].

        Raises DataError for one that no row has.
        """
        every = np.unique(np.concatenate([rows.user for rows in self.splits.values()]))
        known, own = pd.Index(self.user_names(every), dtype=object), [str(one) for one in ids]
        place = known.get_indexer(pd.Index(own, dtype=object))
        if (place < 0).any():
            raise DataError(
                f"Found user {own[int(place.argmin())]!r}, expected one of the {len(every):,} "
                f"users of {self.folder}, such as {parquet.listed(known[:3].tolist())}: leave it "
                "out."
            )
        return every[place]

    def ids(self, rows: Impressions) -> dict[str, np.ndarray]:
        """What the user calls the users and targets of rows: user_id, item_id, text, object [n]."""
        users, place = np.unique(rows.user, return_inverse=True)  # one text a user, not a row
        return {"user_id": self.user_names(users)[place], "item_id": self.catalog.ids[rows.target]}

    @cached_property
    def _user_ids(self) -> names.Names | None:
        # Read when somebody asks: there may be millions.
        return names.user_ids(self.folder)

    def summary(self) -> pd.DataFrame:
        """One row a split: rows, users, share of clicks (as it is called) and history lengths."""
        rate = self.wording.rate
        return pd.DataFrame(
            [
                {
                    "split": name,
                    "rows": len(rows),
                    "users": len(np.unique(rows.user)),
                    "target items": len(np.unique(rows.target)),
                    rate: float("nan") if rows.label is None else rows.label.mean(),
                    "mean history": rows.history_length.mean() if len(rows) else 0.0,
                    "longest history": rows.history_length.max(initial=0),
                }
                for name, rows in self.splits.items()
            ]
        )

    @property
    def known_rows(self) -> Impressions:
        """The rows whose clicks are known: those of train, and what was learned from before."""
        return self.train if self.known is None else self.known

    @property
    def clicks(self) -> Impressions:
        """The known rows that are clicks: what strategies may be fitted to."""
        rows = self.known_rows
        return rows.select(np.flatnonzero(rows.label == 1))

    def train_clicks(self) -> np.ndarray:
        """How often each item was clicked as a target that is known, int64 [n_items + 1]."""
        rows = self.known_rows
        clicked = rows.target[rows.label == 1]
        return np.bincount(clicked, minlength=self.catalog.n_items + 1)

    @cached_property
    def popularity(self) -> Popularity:
        """Train clicks over time; only where train has times."""
        return Popularity(self.known_rows, self.catalog.n_items)

    def levels(self, rows: Impressions) -> np.ndarray:
        """likes_level and views_level of each target, int8 [n, 2], as of its time if known."""
        if rows.levels is not None:
            return rows.levels
        catalog = self.catalog
        return np.stack([catalog.likes_level, catalog.views_level], axis=1)[rows.target]

    def known_clicks(self, rows: Impressions) -> np.ndarray:
        """Train clicks of each row's target, int64 [n], where rows have times those before it."""
        if rows.time is None or self.train.time is None:
            return self.train_clicks()[rows.target]
        return self.popularity.clicks(rows.target, rows.time)

    def repeated_rows(self, earlier: str = "train", later: str = "valid") -> int:
        """How many rows of one split also stand in another: same user, target and history."""
        first, second = self.split(earlier), self.split(later)
        # Only rows of the same users can be repeated: hash no others, train may be huge.
        seen = np.flatnonzero(pd.Index(first.user).isin(second.user))
        known, asked = (
            pd.MultiIndex.from_arrays([rows.user, rows.target, history_hashes(rows)])
            for rows in (first.select(seen), second)
        )
        return int(asked.isin(known).sum())


def check(folder: Path | str) -> tuple[Dataset | None, list[str]]:
    """Validate every file of a folder: the dataset if all is well, and the errors of each file."""
    folder, errors = existing_folder(folder), []

    def attempt(load: Callable[..., Any], *arguments: object) -> Any:
        try:
            return load(*arguments)
        except DataError as error:
            errors.append(str(error))
            return None

    catalog, fields = attempt(load_catalog, folder), attempt(load_fields, folder) or ()
    n_items = catalog.n_items if catalog else np.iinfo(np.int32).max
    for name in schema.SPLITS:
        if schema.find_file(folder, f"{name}.parquet"):
            attempt(_load_split, folder, name, n_items, fields)
    for column in catalog.provided if catalog else ():
        attempt(catalog.provided_embedding, column)
    dataset = None if errors else attempt(Dataset.load, folder)
    if dataset is not None:
        users = [np.unique(rows.user) for rows in dataset.splits.values()]
        attempt(dataset.user_names, np.unique(np.concatenate(users)))
    if not errors:
        attempt(names.user_ids, folder, True)
    return None if errors else dataset, errors


def _is_elsewhere(folder: Path) -> bool:
    """Whether a split must be brought over to be read."""
    places = (schema.find_file(folder, f"{name}.parquet") for name in schema.SPLITS)
    return any(isinstance(place, Address) for place in places)


def _read_parts(folder: Path, fields: tuple[Field, ...]) -> cache.Parts:
    """The arrays of the catalog and of each split, by field, read and validated."""
    parts = {"catalog": item_arrays(folder, fields)}
    n_items, popularity = len(parts["catalog"]["tags"]) - 1, None
    for name in schema.SPLITS:
        path = schema.find_file(folder, f"{name}.parquet")
        if path:
            rows = _load_split(folder, name, n_items, fields)
            if name == "train" and rows.time is not None:
                popularity = Popularity(rows, n_items)
            # Levels that rows tell are the catalog's.
            told = schema.LEVEL_COLUMNS[0] in parquet.table_schema(path).names
            if popularity and rows.time is not None and not told:
                levels, every = Column(folder), list(row_blocks(len(rows)))
                for part in bar_if_long(every, len(every), "popularity"):
                    levels.append(popularity.levels(rows.target[part], rows.time[part]))
                rows = replace(rows, levels=levels.whole())
            parts[name] = vars(rows)
        elif name != "test":
            raise DataError(
                f"{folder} has no {name}.parquet, neither there nor in "
                f"{schema.NESTED_FOLDER}/: choose the folder of a dataset."
            )
    return parts


def _load_split(folder: Path, name: str, n_items: int, fields: tuple[Field, ...]) -> Impressions:
    """A split with the codes of its rows' fields: the users', then the context's."""
    path = schema.find_file(folder, f"{name}.parquet")
    context = [field for field in fields if field.owner == "context"]
    rows = load_impressions(path, n_items, labelled=name != "test", context=context)
    users = [field for field in fields if field.owner == "user"]
    if users:
        parts, coded = list(row_blocks(len(rows))), Column(folder)
        numbers = np.unique(np.concatenate([np.unique(rows.user[part]) for part in parts]))
        table = schema.find_file(folder, schema.USER_FIELDS)
        codes = owner_codes(table, "user_id", users, numbers)
        for part in parts:
            own = codes[np.searchsorted(numbers, rows.user[part])]
            coded.append(np.hstack([own, *([rows.fields[part]] if context else [])]))
        rows = replace(rows, fields=coded.whole())
    return rows
