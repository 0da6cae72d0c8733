"""A fitted strategy as JSON and arrays, which a file can hold without anything to be executed.

What it was fitted with stays behind: restored, a strategy transforms items that come later.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from mmctr.content.alignment import ContrastiveAlignment
from mmctr.content.fusion import columns_read, embed, features_by_column, padded
from mmctr.content.quantization import ResidualQuantizer
from mmctr.content.scaling import RootMeanSquareScaler
from mmctr.content.strategies import IDS, PROVIDED
from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.errors import ConfigError

Structure = dict[str, Any]  # what JSON holds of an estimator
Arrays = dict[str, np.ndarray]  # what it has learned, by place and attribute
# Of each estimator what its transform reads: parameters, and what it has learned.
LEAVES: dict[type[BaseEstimator], tuple[tuple[str, ...], tuple[str, ...]]] = {
    StandardScaler: (("with_mean", "with_std"), ("mean_", "scale_")),
    PCA: (("whiten",), ("components_", "mean_", "explained_variance_")),
    RootMeanSquareScaler: ((), ("scale_",)),
    ContrastiveAlignment: (("columns", "dim"), ("mean_", "projection_", "widths_")),
    ResidualQuantizer: (
        ("levels",),
        ("sizes_", "codebooks_", "scales_", "counts_", "ids_"),
    ),
}
KNOWN = (*(kind.__name__ for kind in LEAVES), "Pipeline", "ColumnTransformer by slices")


class Fitted(Protocol):
    """Whatever embeds items by their features."""

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Features, float32 [n, features], as embeddings [n, width]."""
        ...


@dataclass(frozen=True)
class Blocks:
    """A fitted ColumnTransformer: blocks of columns, transformed separately and joined."""

    parts: tuple[tuple[str, Fitted, slice], ...]

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Transform and join, [n, the widths' sum]."""
        return np.hstack([part.transform(X[:, columns]) for _, part, columns in self.parts])


@dataclass(frozen=True)
class FittedStrategy:
    """A strategy as it was fitted to one catalog, for items that come later.

    widths: how many numbers the columns of features had that it was fitted to, by name.
    """

    name: str
    transformer: Fitted
    widths: dict[str, int]

    @property
    def columns(self) -> list[str]:
        """The columns of features that it reads."""
        column = self.name.removeprefix(PROVIDED)
        read = [column] if self.name.startswith(PROVIDED) else columns_read(self.name)
        return [name for name in read if name in self.widths]

    def embed(self, catalog: Catalog) -> np.ndarray:
        """Embed the items of any catalog, as `item_embeddings` does.

        Raises ConfigError if it lacks features that the strategy reads, or has them wider or
        narrower.
        """
        there = features_by_column(catalog)
        if self.name.startswith(PROVIDED):
            has = [column for column in self.columns if column in catalog.provided]
            there = {column: catalog.provided_embedding(column) for column in has}
        for column in self.columns:
            wanted = self.widths[column]
            found = there[column].shape[1] if column in there else None
            if found != wanted:
                raise ConfigError(
                    f"Strategy {self.name!r} was fitted to a column {column} of {wanted} numbers, "
                    f"but these items have {found or 'none'}: make their features as those of the "
                    "training data were made."
                )
        # What it does not read keeps its place, so that columns mean what they did.
        blocks = [
            there[column][1:]
            if column in self.columns
            else np.zeros((catalog.n_items, width), dtype=np.float32)
            for column, width in self.widths.items()
        ]
        with np.errstate(invalid="ignore"):
            return padded(self.transformer.transform(np.hstack(blocks)))


def fit(
    dataset: Dataset, strategy: str, dim: int = 128
) -> tuple[np.ndarray | None, FittedStrategy | None]:
    """`item_embeddings` of a dataset, and what made them; (None, None) for "ids"."""
    if strategy == IDS:
        return None, None
    catalog = dataset.catalog
    embedding, transformer = embed(catalog, strategy, dim, dataset.clicks)
    if strategy.startswith(PROVIDED):
        widths = {strategy.removeprefix(PROVIDED): embedding.shape[1]}
    else:
        widths = {name: part.shape[1] for name, part in features_by_column(catalog).items()}
    return embedding, FittedStrategy(strategy, transformer, widths)


def to_state(transformer: object, place: str = "") -> tuple[Structure, Arrays]:
    """What `from_state` restores a fitted transformer from: a structure for JSON, and arrays.

    place: what the names of the arrays begin with. Raises ConfigError for an estimator that is not
    one of KNOWN.
    """
    name = type(transformer).__name__
    if isinstance(transformer, Pipeline):
        inner = [(step, part, {}) for step, part in transformer.steps]
    elif isinstance(transformer, Blocks):
        inner = [(step, part, _span(columns)) for step, part, columns in transformer.parts]
    elif isinstance(transformer, ColumnTransformer) and transformer.transformer_weights is None:
        parts = [part for part in transformer.transformers_ if part[1] != "drop"]
        inner = [(step, part, _span(columns)) for step, part, columns in parts]
    elif type(transformer) in LEAVES:
        return _leaf_state(transformer, place)
    else:
        raise ConfigError(
            f"The strategy has fitted {name} ({place.removesuffix('/') or 'as a whole'}), which a "
            f"run cannot keep: build it of {', '.join(KNOWN)}."
        )
    structure: Structure = {"estimator": name, "parts": []}
    arrays: Arrays = {}
    for step, part, span in inner:
        below, learned = to_state(part, f"{place}{step}/")
        structure["parts"].append({"name": step, **span, "fitted": below})
        arrays |= learned
    if isinstance(transformer, Blocks):
        structure["estimator"] = ColumnTransformer.__name__
    return structure, arrays


def from_state(structure: Structure, arrays: Mapping[str, np.ndarray], place: str = "") -> Fitted:
    """The transformer that `to_state` was given: its `transform` is the same, bit for bit.

    Raises ValueError, KeyError or TypeError for what `to_state` has not made.
    """
    kind = structure["estimator"]
    parts = [
        (str(part["name"]), from_state(part["fitted"], arrays, f"{place}{part['name']}/"), part)
        for part in structure.get("parts", ())
    ]
    if kind == ColumnTransformer.__name__:
        blocks = [(name, fitted, slice(*map(int, part["columns"]))) for name, fitted, part in parts]
        return Blocks(tuple(blocks))
    if kind == Pipeline.__name__:
        return Pipeline([(name, fitted) for name, fitted, _ in parts])
    known = {leaf.__name__: leaf for leaf in LEAVES}
    if kind not in known:
        raise ValueError(f"an unknown estimator {kind!r:.60}")
    return _leaf(known[kind], structure, arrays, place)


def _leaf_state(transformer: BaseEstimator, place: str) -> tuple[Structure, Arrays]:
    parameters, attributes = LEAVES[type(transformer)]
    learned = {name: getattr(transformer, name) for name in attributes}
    learned = {name: np.asarray(value) for name, value in learned.items() if value is not None}
    structure: Structure = {
        "estimator": type(transformer).__name__,
        "parameters": {name: getattr(transformer, name) for name in parameters},
        # By it a product of matrices is summed in the same order as before.
        "by_column": [name for name, value in learned.items() if _by_column(value)],
    }
    if hasattr(transformer, "n_features_in_"):
        structure["features"] = int(transformer.n_features_in_)
    # safetensors' NumPy half stores arrays that are not contiguous wrongly, and says nothing.
    return structure, {
        f"{place}{name}": np.array(value, order="C") for name, value in learned.items()
    }


def _leaf(
    kind: type[BaseEstimator], structure: Structure, arrays: Mapping[str, np.ndarray], place: str
) -> Fitted:
    parameters, attributes = LEAVES[kind]
    leaf = kind(**{name: _plain(structure["parameters"][name]) for name in parameters})
    for name in attributes:
        value = arrays.get(f"{place}{name}")
        if value is not None and name in structure["by_column"]:
            value = np.asfortranarray(value)
        if value is not None and not value.ndim:
            value = value.item()  # a number, beside which float32 stays float32
        setattr(leaf, name, value)
    if "features" in structure:
        leaf.n_features_in_ = int(structure["features"])
    return leaf


def _plain(parameter: object) -> object:
    """A truth, a whole number or a list of such lists; ValueError for anything else."""
    if isinstance(parameter, list):
        return [_plain(one) for one in parameter]
    if not isinstance(parameter, int):
        raise ValueError(f"a parameter {parameter!r:.60}")
    return parameter


def _by_column(value: np.ndarray) -> bool:
    return value.ndim == 2 and value.strides[0] < value.strides[1]


def _span(columns: object) -> Structure:
    """Columns as JSON has them: first and stop; ConfigError unless they are a plain slice."""
    plain = isinstance(columns, slice) and columns.step in (None, 1)
    if not plain or None in (columns.start, columns.stop) or min(columns.start, columns.stop) < 0:
        raise ConfigError(
            f"The strategy reads the columns {columns!r}, which a run cannot keep: name them by a "
            "slice such as slice(0, 768)."
        )
    return {"columns": [int(columns.start), int(columns.stop)]}
