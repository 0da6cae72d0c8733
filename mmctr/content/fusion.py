"""Strategies applied to a catalog: one embedding for each item."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.base import TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from tqdm.auto import tqdm

from mmctr.content.quantization import ResidualQuantizer
from mmctr.content.scaling import RootMeanSquareScaler
from mmctr.content.strategies import FROM_CLICKS, IDS, PROVIDED, STRATEGIES, require_known
from mmctr.data import parquet, schema
from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.errors import ConfigError
from mmctr.files import atomic_path


def item_embeddings(dataset: Dataset, strategy: str, dim: int = 128) -> np.ndarray | None:
    """Embed every item by a strategy: float32 [n_items + 1, width], row 0 zero; None for "ids".

    Semantic ids, of v6, are int32 [n_items + 1, levels]. Of clicks only those of train are read, by
    v5 and v6. The width is `dim`, less where the data allow fewer components (see `narrowed`), or
    the column's own for `provided:COLUMN`. Raises ConfigError for an unknown strategy, a missing
    feature column or a catalog without items.
    """
    return None if strategy == IDS else embed(dataset.catalog, strategy, dim, dataset.clicks)[0]


def embed(
    catalog: Catalog, strategy: str, dim: int = 128, clicks: Impressions | None = None
) -> tuple[np.ndarray, TransformerMixin]:
    """Like `item_embeddings`, with the fitted transformer beside it.

    clicks: the rows of train that are clicks, for strategies that are fitted to them.
    """
    check_strategy(catalog, strategy)
    if strategy.startswith(PROVIDED):
        features = catalog.provided_embedding(strategy.removeprefix(PROVIDED))
        transformer = RootMeanSquareScaler()
    else:
        features = _features(catalog)
        transformer = STRATEGIES[strategy](*_columns(catalog), dim)
        _fit_to_sizes(transformer, catalog, strategy)
    with np.errstate(invalid="ignore"):  # shares of no variance: see `explained_variance`
        return padded(transformer.fit_transform(features[1:], clicks)), transformer


def embed_each(
    catalog: Catalog, strategies: list[str], clicks: Impressions | None = None
) -> dict[str, tuple[np.ndarray, TransformerMixin]]:
    """`embed` of several strategies, with progress; what v6 quantizes is fitted once, as v5."""
    fitted: dict[str, tuple[np.ndarray, TransformerMixin]] = {}
    for name in tqdm(strategies, desc="fit", unit="strategy"):
        if name == "v6" and "v5" in fitted:
            embedding, aligned = fitted["v5"]
            quantizer = ResidualQuantizer().fit(embedding[1:])
            codes = padded(quantizer.transform(embedding[1:]))
            fitted[name] = codes, make_pipeline(aligned, quantizer)
        else:
            fitted[name] = embed(catalog, name, clicks=clicks)
    return fitted


def vectors(embedding: np.ndarray, transformer: Any) -> np.ndarray:
    """What items look like to a fitted strategy, float32 [n_items + 1, width], row 0 zero.

    The item embedding itself, and of semantic ids what they know of the vectors behind them.
    """
    if embedding.dtype.kind != "i":
        return embedding
    return padded(transformer[-1].decode(embedding[1:]))


def provide(dataset: Dataset, strategy: str, column: str) -> Path:
    """Write what items look like to a strategy as a column of the dataset's item_emb.parquet.

    It is the strategy provided:COLUMN then. Raises ConfigError for "ids", a strategy that is
    provided itself, and a column that the file has already.
    """
    name = "item_emb.parquet"
    path = schema.find_file(dataset.folder, name) or dataset.folder / name
    if strategy not in STRATEGIES:
        raise ConfigError(
            f"Strategy {strategy!r} has nothing to keep: choose one of {', '.join(STRATEGIES)}."
        )
    ids = pa.array(np.arange(dataset.catalog.n_items + 1))
    table = pq.read_table(path) if path.exists() else pa.table({"item_id": ids})
    if column in table.column_names:
        raise ConfigError(f"{path} has a column {column} already: choose another with --column.")
    made = vectors(*embed(dataset.catalog, strategy, clicks=dataset.clicks))
    rows = made[table["item_id"].to_numpy()]
    with atomic_path(path) as temporary:
        pq.write_table(table.append_column(column, parquet.float_lists(rows)), temporary)
    return path


def padded(embedding: np.ndarray) -> np.ndarray:
    """Vectors or semantic ids of items, [n, width], with a row 0 of zeros: float32 or int32."""
    kind = np.int32 if embedding.dtype.kind == "i" else np.float32
    return np.pad(embedding.astype(kind), ((1, 0), (0, 0)))


def embedding_hash(embedding: np.ndarray | None) -> str | None:
    """SHA-256 of an item embedding's shape and float32 values; None for none.

    It stands for all that a strategy fitted, whatever the strategy is made of. Another CPU or
    library may round the last bits otherwise, and so give another hash.
    """
    if embedding is None:
        return None
    values = np.ascontiguousarray(embedding, dtype="<f4")
    return sha256(f"{values.shape}".encode() + values.tobytes()).hexdigest()


def explained_variance(transformer: TransformerMixin) -> dict[str, np.ndarray]:
    """Cumulated share of variance by number of components, for each PCA of a fitted strategy.

    Of features that are the same for all items there is no variance to explain: the share is zero.
    """
    transformer = _blocks_of(transformer)
    blocks = transformer.transformers_ if isinstance(transformer, ColumnTransformer) else []
    return {
        name: np.cumsum(np.nan_to_num(pca.explained_variance_ratio_))
        for name, pca, _ in _pca_blocks(blocks)
    }


def narrowed(catalog: Catalog, *strategies: str, dim: int = 128) -> str:
    """Which strategies keep fewer components than `dim` asks for, in words; empty if none does."""
    sentences = []
    for strategy in strategies:
        if strategy not in STRATEGIES or _missing_features(catalog, strategy):
            continue
        transformer = STRATEGIES[strategy](*_columns(catalog), dim)
        kept = [
            f"{possible} {name} component{'s' * (possible > 1)} instead of {pca.n_components}"
            for name, pca, possible in _possible_components(transformer, catalog)
            if possible < pca.n_components
        ]
        if kept:
            sentences.append(f"{strategy} keeps {' and '.join(kept)}, as many as there are.")
    return " ".join(sentences)


def available_strategies(catalog: Catalog) -> list[str]:
    """The strategies that a catalog has the columns for, `provided:COLUMN` ones included."""
    built = [name for name in STRATEGIES if not _missing_features(catalog, name)]
    return built + [PROVIDED + column for column in sorted(catalog.provided)]


def check_strategy(catalog: Catalog, strategy: str) -> None:
    """Raise ConfigError unless the catalog has what the strategy needs, listing what there is."""
    require_known(strategy)
    available = available_strategies(catalog)
    there_is = f"choose one of {', '.join([*available, IDS])}."
    if not available:
        there_is = f"extract features first (mmctr features extract), or choose {IDS}."
    if strategy.startswith(PROVIDED):
        if strategy.removeprefix(PROVIDED) not in catalog.provided:
            raise ConfigError(
                f"Strategy {strategy!r} names a column that neither item_emb.parquet nor "
                f"item_info.parquet has: {there_is}"
            )
    elif strategy != IDS and (missing := _missing_features(catalog, strategy)):
        raise ConfigError(
            f"Strategy {strategy!r} needs {missing} features, which item_feature.parquet does "
            f"not have: {there_is}"
        )


def columns_read(strategy: str) -> list[str]:
    """Which columns of features a strategy of the registry reads: those of text, image or both."""
    transformer = STRATEGIES[strategy](slice(0, 1), slice(1, 2), 2)
    # A transformer that is not made of blocks of columns reads all of them.
    is_blocks = isinstance(transformer, ColumnTransformer)
    read = [block[2] for block in transformer.transformers] if is_blocks else [slice(0, 2)]
    reads = {
        schema.TEXT_COLUMN: any(part.start == 0 for part in read),
        schema.IMAGE_COLUMN: any(part.stop == 2 for part in read),
    }
    return [column for column, wanted in reads.items() if wanted]


def features_by_column(catalog: Catalog) -> dict[str, np.ndarray]:
    """The features of text and image that a catalog has, float32 [n_items + 1, width] each."""
    both = {
        schema.TEXT_COLUMN: catalog.text_features,
        schema.IMAGE_COLUMN: catalog.image_features,
    }
    return {column: features for column, features in both.items() if features is not None}


def _pca_blocks(blocks: list[tuple[str, TransformerMixin, slice]]) -> list[tuple[str, PCA, slice]]:
    """Name, PCA and columns of those blocks of a ColumnTransformer that are a pipeline with one."""
    return [
        (name, block["pca"], columns)
        for name, block, columns in blocks
        if isinstance(block, Pipeline) and "pca" in block.named_steps
    ]


def _blocks_of(transformer: TransformerMixin) -> TransformerMixin:
    """What makes vectors of features, before they are quantized."""
    return transformer[0] if isinstance(transformer, Pipeline) else transformer


def _columns(catalog: Catalog) -> tuple[slice, slice]:
    """Where text and image features stand in `_features`."""
    both = (catalog.text_features, catalog.image_features)
    text, image = (0 if part is None else part.shape[1] for part in both)
    return slice(0, text), slice(text, text + image)


def _features(catalog: Catalog) -> np.ndarray:
    return np.hstack(list(features_by_column(catalog).values()))


def _missing_features(catalog: Catalog, strategy: str) -> str:
    """Which of text and image a strategy reads and the catalog lacks, in words."""
    there, media = features_by_column(catalog), {schema.TEXT_COLUMN: "text"}
    missing = [column for column in columns_read(strategy) if column not in there]
    if there and strategy in FROM_CLICKS:
        return ""
    return " and ".join(media.get(column, "image") for column in missing)


def _possible_components(
    transformer: TransformerMixin, catalog: Catalog
) -> list[tuple[str, PCA, int]]:
    """Name and PCA of each block, and how many components items and features allow it."""
    transformer = _blocks_of(transformer)
    blocks = transformer.transformers if isinstance(transformer, ColumnTransformer) else []
    return [
        (name, pca, min(catalog.n_items, columns.stop - columns.start))
        for name, pca, columns in _pca_blocks(blocks)
    ]


def _fit_to_sizes(transformer: TransformerMixin, catalog: Catalog, strategy: str) -> None:
    """Limit each PCA to the components that there are, before it is fitted."""
    if catalog.n_items == 0:
        raise ConfigError(f"Strategy {strategy!r} has no items to fit on: the catalog is empty.")
    for name, pca, possible in _possible_components(transformer, catalog):
        if pca.n_components < 1:
            raise ConfigError(
                f"Strategy {strategy!r} found {pca.n_components} {name} components, expected at "
                "least 1: call item_embeddings with a larger dim."
            )
        pca.set_params(n_components=min(pca.n_components, possible))
        if catalog.n_items == 1:
            pca.set_params(svd_solver="full")  # a single item has no covariance
