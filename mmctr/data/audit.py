"""Problems of a dataset that do not stop it from loading, but that its user should know of."""

import hashlib

import numpy as np
import pandas as pd

from mmctr.data import schema
from mmctr.data.dataset import Catalog, Dataset

CONSTANT = 1e-3  # a feature vector varies less than this share of its root mean square


def problems(dataset: Dataset) -> pd.DataFrame:
    """Each kind of problem found: problem, number, examples (item ids) and what it means."""
    catalog = dataset.catalog
    found = [
        ("items with a blank title", _blank_titles(catalog), "text features say nothing"),
        ("items without tags", _rows(~catalog.tags.any(axis=1)), "the tags field is zero"),
        ("items of unknown popularity", _rows(_unknown_level(catalog)), "level 0 is used"),
    ]
    if catalog.covers:
        without = np.ones(catalog.n_items + 1, dtype=bool)
        without[list(catalog.covers)] = False
        repeated = _repeated_covers(catalog)
        found += [
            ("items without a cover", _rows(without), "nothing to show, or to extract from"),
            ("items with another item's cover", repeated, "image features may be another item's"),
        ]
    for name, features in (("text", catalog.text_features), ("image", catalog.image_features)):
        if features is not None:
            size = np.sqrt(np.square(features).mean(axis=1))
            zero, constant = size == 0, features.std(axis=1) < CONSTANT * size
            found += [
                (f"items with zero {name} features", _rows(zero), "no features were extracted"),
                (f"items with constant {name} features", _rows(constant), "extraction went wrong"),
            ]
    found += _unreadable(dataset)
    table = pd.DataFrame(
        [(problem, len(items), _examples(items), means) for problem, items, means in found],
        columns=["problem", "number", "examples", "meaning"],
    )
    table.loc[len(table)] = [
        "valid rows that also stand in train",
        dataset.repeated_rows(),
        "",
        "valid metrics are too good: user, target and history are identical",
    ]
    return table[table["number"] > 0].reset_index(drop=True)


def describe(dataset: Dataset) -> str:
    """A dataset in words and tables, for a terminal."""
    catalog = dataset.catalog
    widths = {
        "text features": catalog.text_features,
        "image features": catalog.image_features,
    }
    lines = [
        f"{dataset.folder}",
        f"fingerprint {dataset.fingerprint}" + (", simulated" if dataset.simulated else ""),
        "",
        dataset.summary().to_string(index=False, float_format="{:.3f}".format),
        "",
        f"items            {catalog.n_items:,}",
        f"largest tag      {catalog.tags.max(initial=0):,}",
        f"titles           {sum(bool(str(title).strip()) for title in catalog.titles):,}",
        f"covers           {len(catalog.covers):,}",
        *(
            f"{name:<16} {'none' if values is None else f'{values.shape[1]:,} numbers an item'}"
            for name, values in widths.items()
        ),
        f"ready embeddings {', '.join(catalog.provided) or 'none'}",
        "",
    ]
    found = problems(dataset)
    if found.empty:
        return "\n".join([*lines, "No problems found."])
    lines += [f"{row.number:>8,} {row.problem} ({row.meaning})" for row in found.itertuples()]
    return "\n".join(lines)


def _unreadable(dataset: Dataset) -> list[tuple[str, np.ndarray, str]]:
    """Items whose title or cover the extraction could not use, by medium and reason."""
    path = dataset.folder / schema.EXTRACTION_ERRORS
    if not path.is_file():
        return []
    table = schema.read_columns(path, list(schema.ERROR_COLUMNS)).to_pandas()
    return [
        (f"items with unusable {medium}", part["item"].to_numpy(), f"{reason}: features are zero")
        for (medium, reason), part in table.groupby(["medium", "reason"])
    ]


def _rows(mask: np.ndarray) -> np.ndarray:
    """The items of a mask over the catalog's rows, padding aside."""
    return np.flatnonzero(mask[1:]) + 1


def _blank_titles(catalog: Catalog) -> np.ndarray:
    return _rows(np.array([not str(title).strip() for title in catalog.titles]))


def _unknown_level(catalog: Catalog) -> np.ndarray:
    return (catalog.likes_level == 0) | (catalog.views_level == 0)


def _repeated_covers(catalog: Catalog) -> np.ndarray:
    digests = {
        item: hashlib.sha256(path.read_bytes()).digest() for item, path in catalog.covers.items()
    }
    series = pd.Series(digests)
    return np.sort(series.index[series.duplicated(keep=False)].to_numpy())


def _examples(items: np.ndarray) -> str:
    return ", ".join(map(str, items[:3])) + (", ..." if len(items) > 3 else "")
