"""Problems of a dataset that do not stop it from loading, but that its user should know of.

Leaks are told apart: whatever tells the labels of valid or test in another way than by taste makes
metrics better than they will be on new clicks.
"""

import hashlib
from itertools import combinations

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from mmctr.data import parquet, schema
from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions, target_in_history
from mmctr.data.rates import field_codes

CONSTANT = 1e-3  # a feature vector varies less than this share of its root mean square
SAMPLE = 200_000  # rows of a split that single features are tried on
FOLDS = 5  # of train: what a value of a field tells is learned on the other four
PRIOR = 10  # rows of the mean rate that are added to those of each value
SUSPECT = 0.85  # AUC of one feature alone; popularity reaches 0.6 to 0.75 in clean data


def problems(dataset: Dataset) -> pd.DataFrame:
    """Each kind of problem found: problem, number, examples (own ids of items), meaning."""
    catalog = dataset.catalog
    blank = np.array([not str(title).strip() for title in catalog.titles])
    unknown = (catalog.likes_level == 0) | (catalog.views_level == 0)
    found = [
        ("items with a blank title", _rows(blank), "text features say nothing"),
        ("items without tags", _rows(~catalog.tags.any(axis=1)), "the tags field is zero"),
        ("items of unknown popularity", _rows(unknown), "level 0 is used"),
    ]
    if catalog.covers:
        without = np.ones(catalog.n_items + 1, dtype=bool)
        without[list(catalog.covers)] = False
        repeated = _repeated_covers(catalog)
        found += [
            ("items without a cover", _rows(without), "nothing to show, or to extract from"),
            ("items with another item's cover", repeated, "image features may be another item's"),
        ]
    for name, features in _features(catalog).items():
        size = np.sqrt(np.square(features).mean(axis=1))
        zero, constant = size == 0, features.std(axis=1) < CONSTANT * size
        found += [
            (f"items with zero {name}", _rows(zero), "no features were extracted"),
            (f"items with constant {name}", _rows(constant), "extraction went wrong"),
        ]
    found += _unreadable(dataset)
    table = pd.DataFrame(
        [
            (problem, len(items), _examples(catalog.ids[items]), means)
            for problem, items, means in found
        ],
        columns=["problem", "number", "examples", "meaning"],
    )
    return table[table["number"] > 0].reset_index(drop=True)


def leaks(dataset: Dataset) -> pd.DataFrame:
    """Each sign of a leak that was found: sign, number and what it means; none may be there."""
    found = [
        (
            f"{later} rows that also stand in {earlier}",
            dataset.repeated_rows(earlier, later),
            "user, target and history are identical: what was learned by heart counts as skill",
        )
        for earlier, later in combinations(dataset.splits, 2)
    ]
    for name, rows in dataset.splits.items():
        inside = target_in_history(rows)
        found.append((f"{name} rows with the target in their history", *_inside(rows, inside)))
    _, times = np.unique(dataset.train.user, return_counts=True)
    once = "they are known by one row: what the model says of them rests on the others"
    found.append(("users with a single train row", int((times == 1).sum()), once))
    alone = single_feature_auc(dataset)
    strength = alone["valid AUC"].sub(0.5).abs() + 0.5
    for line in alone[strength >= SUSPECT].itertuples(index=False):
        means = "alone it tells nearly every click: it may have been made from the labels"
        found.append((f"valid rows told by {line[0]} (AUC {line[2]:.2f})", line[3], means))
    found += [_cold_level(dataset, name) for name in schema.LEVEL_COLUMNS]
    table = pd.DataFrame(found, columns=["sign", "number", "meaning"])
    return table[table["number"] > 0].reset_index(drop=True)


def single_feature_auc(dataset: Dataset) -> pd.DataFrame:
    """How well each feature alone ranks clicks above non-clicks, the strongest first.

    Columns: feature, train AUC, valid AUC, rows (of valid that were tried). Below 0.5 a feature
    counts against a click. Of embeddings the column that goes best with train's labels is tried.
    Of its target's train clicks those before the row count; without times, all but the row's own.
    Of a field the share of clicks of the value is tried, as other train rows tell it.
    """
    splits = {name: _sample(dataset.split(name)) for name in ("train", "valid")}
    of_fields = _field_rates(dataset, splits["train"], splits["valid"])
    lines = {}
    for name, rows in splits.items():
        levels = dataset.levels(rows)
        own = name == "train" and rows.time is None
        clicks = dataset.known_clicks(rows) - own * rows.label
        features = {
            "likes_level": levels[:, 0],
            "views_level": levels[:, 1],
            "train clicks of the target": clicks,
            "length of the history": rows.history_length,
            "target in its history": target_in_history(rows),
            "item id": rows.target,
            **_strongest_columns(dataset.catalog, splits["train"], rows),
            **of_fields[name],
        }
        lines[f"{name} AUC"] = {key: _auc(rows.label, value) for key, value in features.items()}
    table = pd.DataFrame(lines).rename_axis("feature").reset_index()
    table["rows"] = len(splits["valid"])
    order = table["valid AUC"].sub(0.5).abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def describe(dataset: Dataset) -> str:
    """A dataset in words and tables, for a terminal."""
    catalog = dataset.catalog
    features, fields = _features(catalog), dataset.fields
    widths = {name: f"{values.shape[1]:,} numbers an item" for name, values in features.items()}
    lines = [
        f"{dataset.folder}",
        f"fingerprint {dataset.fingerprint}" + (", simulated" if dataset.simulated else ""),
        dataset.wording.negatives,
        "",
        dataset.summary().to_string(index=False, float_format="{:.3f}".format),
        "",
        f"items            {catalog.n_items:,}",
        f"largest tag      {catalog.tags.max(initial=0):,}",
        f"titles           {sum(bool(str(title).strip()) for title in catalog.titles):,}",
        f"covers           {len(catalog.covers):,}",
        f"text features    {widths.get('text features', 'none')}",
        f"image features   {widths.get('image features', 'none')}",
        f"ready embeddings {', '.join(catalog.provided) or 'none'}",
        f"fields           {', '.join(field.title for field in fields) or 'none'}",
        "",
    ]
    for title, found in (("problems", problems(dataset)), ("signs of a leak", leaks(dataset))):
        lines += [f"{number:>8,} {what} ({means})" for what, number, *_, means in found.to_numpy()]
        lines += [f"No {title} found."] if found.empty else []
    alone = single_feature_auc(dataset).drop(columns="rows")
    shown = alone.to_string(index=False, float_format="{:.3f}".format)
    return "\n".join([*lines, "", "What each feature alone tells of clicks:", shown])


def _unreadable(dataset: Dataset) -> list[tuple[str, np.ndarray, str]]:
    """Items whose title or cover the extraction could not use, by medium and reason."""
    path = dataset.folder / schema.EXTRACTION_ERRORS
    if not path.is_file():
        return []
    table = parquet.read_columns(path, list(schema.ERROR_COLUMNS))
    parquet.integers(table["item"], path, "item", low=1, high=dataset.catalog.n_items)
    table = table.to_pandas()
    return [
        (f"items with unusable {medium}", part["item"].to_numpy(), f"{reason}: features are zero")
        for (medium, reason), part in table.groupby(["medium", "reason"])
    ]


def _inside(rows: Impressions, inside: np.ndarray) -> tuple[int, str]:
    """How many targets stand in their own history, and what that means for their labels."""
    means = "the item was clicked before, which is no leak in itself"
    if rows.label is not None and inside.any():
        rate, others = rows.label[inside].mean(), rows.label[~inside]
        beside = f"{others.mean():.0%} of the others" if len(others) else "there are no others"
        means += f"; {rate:.0%} of them are clicked, {beside}"
        means += ": a click may stand in its own history" if rate == 1 else ""
    return int(inside.sum()), means


def _cold_level(dataset: Dataset, name: str) -> tuple[str, int, str]:
    """Whether a level knows clicks that are not in train, seen on items without any in train."""
    rows = dataset.valid
    rows = rows.select(np.flatnonzero(dataset.train_clicks()[rows.target] == 0))
    level = getattr(dataset.catalog, name)[rows.target]
    clicked = 0 if rows.label is None else int(rows.label.sum())
    pairs = clicked * (len(rows) - clicked)
    value = _auc(rows.label, level) if pairs else 0.5
    # Four standard errors of an AUC by chance (Mann-Whitney), because rows of a user hang together.
    tells = pairs > 0 and value - 0.5 > 4 * ((len(rows) + 1) / (12 * pairs)) ** 0.5
    means = (
        f"its AUC is {value:.2f} there, so it was counted over more than train: over all splits, "
        "which leaks, or over more than this dataset"
    )
    return f"valid rows of items without train clicks, told by {name}", len(rows) * tells, means


def _strongest_columns(
    catalog: Catalog, train: Impressions, rows: Impressions
) -> dict[str, np.ndarray]:
    """Of each embedding the column that goes best with train's labels, at the rows' targets."""
    embeddings = _features(catalog)
    embeddings |= {name: catalog.provided_embedding(name) for name in catalog.provided}
    size = catalog.n_items + 1
    shown = (np.bincount(train.target, minlength=size) / len(train)).astype(np.float32)
    surplus = np.bincount(train.target, train.label - train.label.mean(), size).astype(np.float32)
    result = {}
    for name, values in embeddings.items():
        square = np.einsum("i,ij,ij->j", shown, values, values)
        # A column that hardly varies goes with nothing, whatever its rounding errors do.
        variance = np.maximum(square - (shown @ values) ** 2, CONSTANT * square + 1e-30)
        column = int(np.abs(surplus @ values / np.sqrt(variance)).argmax())
        result[f"{name}, column {column}"] = values[rows.target, column]
    return result


def _field_rates(
    dataset: Dataset, train: Impressions, valid: Impressions
) -> dict[str, dict[str, np.ndarray]]:
    """The share of clicks that train knows of the value each row has, by split and field.

    A train row's is that of the other folds: without its own label alone, a click's value would
    look worse than a non-click's, and a field that says nothing as if it told all.
    """
    fold = np.random.default_rng(0).integers(FOLDS, size=len(train))
    mean = train.label.mean()
    found = {"train": {}, "valid": {}}
    of_valid = [codes for _, codes in field_codes(dataset, valid)]
    for (field, codes), asked in zip(field_codes(dataset, train), of_valid, strict=True):
        cell, shape = codes * FOLDS + fold, (field.size, FOLDS)
        rows = np.bincount(cell, minlength=field.size * FOLDS).reshape(shape)
        clicks = np.bincount(cell, train.label, field.size * FOLDS).reshape(shape)
        all_rows, all_clicks = rows.sum(axis=1), clicks.sum(axis=1)
        others = all_rows[:, None] - rows + PRIOR
        of_others = (all_clicks[:, None] - clicks + PRIOR * mean) / others
        found["train"][field.title] = of_others[codes, fold]
        found["valid"][field.title] = ((all_clicks + PRIOR * mean) / (all_rows + PRIOR))[asked]
    return found


def _sample(rows: Impressions) -> Impressions:
    """All rows, or a random part of many."""
    if len(rows) <= SAMPLE:
        return rows
    return rows.select(np.sort(np.random.default_rng(0).permutation(len(rows))[:SAMPLE]))


def _auc(label: np.ndarray, feature: np.ndarray) -> float:
    """AUC of a feature; NaN if all labels are equal."""
    return float(roc_auc_score(label, feature)) if len(np.unique(label)) == 2 else float("nan")


def _rows(mask: np.ndarray) -> np.ndarray:
    """The items of a mask over the catalog's rows, padding aside."""
    return np.flatnonzero(mask[1:]) + 1


def _features(catalog: Catalog) -> dict[str, np.ndarray]:
    """The features that there are, float32 [n_items + 1, width], by name."""
    both = {"text features": catalog.text_features, "image features": catalog.image_features}
    return {name: values for name, values in both.items() if values is not None}


def _repeated_covers(catalog: Catalog) -> np.ndarray:
    covers = pd.Series(catalog.covers)
    digests = covers.map(lambda path: hashlib.sha256(path.read_bytes()).digest())
    return np.sort(covers.index[digests.duplicated(keep=False)].to_numpy())


def _examples(ids: np.ndarray) -> str:
    return parquet.listed(ids[:3].tolist()) + (", ..." if len(ids) > 3 else "")
