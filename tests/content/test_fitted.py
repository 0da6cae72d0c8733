"""A fitted strategy comes back from JSON and arrays as it was, and transforms what comes later."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmctr.content.fitted import from_state, to_state
from mmctr.content.fusion import embed
from mmctr.content.scaling import RootMeanSquareScaler
from mmctr.content.strategies import STRATEGIES, blocks
from mmctr.data.impressions import Impressions
from mmctr.errors import ConfigError


def restored(transformer):
    """As a file would give it back."""
    structure, arrays = to_state(transformer)
    return from_state(json.loads(json.dumps(structure)), load(save(arrays)))


def clicks(items):
    """Of each item, after one of the item before it."""
    row, item = np.arange(items), np.arange(1, items + 1, dtype=np.int32)
    return Impressions(row, item, np.ones(items, np.float32), row, row + 1, np.roll(item, 1))


def features(seed, rows, width):
    return np.random.default_rng(seed).normal(3, 2, (rows, width)).astype(np.float32)


@given(
    st.sampled_from(sorted(STRATEGIES)),
    st.integers(0, 99),
    st.integers(3, 40),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_every_strategy_transforms_as_before_bit_for_bit(name, seed, items, widths):
    text, image = slice(0, widths[0]), slice(widths[0], sum(widths))
    transformer = STRATEGIES[name](text, image, 4)
    own = features(seed, items, sum(widths))
    made = transformer[0] if name == "v6" else transformer
    for block, part, columns in made.transformers:
        if block != "aligned":
            part["pca"].set_params(n_components=min(2, items, columns.stop - columns.start))
    transformer.fit(own, clicks(items))
    again = restored(transformer)
    for rows in (own, features(seed + 1, 7, sum(widths)), own[:1]):
        expected = transformer.transform(rows)
        found = again.transform(rows)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(restored(again).transform(own), transformer.transform(own))


@pytest.mark.parametrize(
    "transformer",
    [
        RootMeanSquareScaler(),
        StandardScaler(),
        PCA(3, whiten=True, svd_solver="full"),
        make_pipeline(StandardScaler(), PCA(2, svd_solver="covariance_eigh")),
        blocks(("one", PCA(2), slice(0, 4)), ("two", StandardScaler(), slice(2, 6))),
    ],
)
def test_all_that_is_known_comes_back(transformer):
    transformer.fit(features(0, 30, 6))
    rows = features(1, 9, 6)
    np.testing.assert_array_equal(
        restored(transformer).transform(rows), transformer.transform(rows)
    )


def test_what_the_items_of_a_catalog_were_embedded_by(tiny):
    for name in ("v1", "v4", "provided:item_emb_d128"):
        embedding, transformer = embed(tiny.catalog, name)
        catalog = tiny.catalog
        read = np.hstack([catalog.text_features, catalog.image_features])
        if name.startswith("provided"):
            read = catalog.provided_embedding("item_emb_d128")
        np.testing.assert_array_equal(restored(transformer).transform(read[1:]), embedding[1:])


@pytest.mark.parametrize(
    ("transformer", "message"),
    [
        (TruncatedSVD(2), r"has fitted TruncatedSVD \(as a whole\), which a run cannot keep"),
        (
            blocks(("one", make_pipeline(StandardScaler(), TruncatedSVD(2)), slice(0, 4))),
            r"has fitted TruncatedSVD \(one/truncatedsvd\), which",
        ),
        (blocks(("one", StandardScaler(), [0, 2])), r"reads the columns \[0, 2\], which"),
        (blocks(("one", StandardScaler(), slice(0, 4, 2))), r"reads the columns slice\(0, 4, 2\)"),
        (
            ColumnTransformer(
                [("one", StandardScaler(), slice(0, 4))], transformer_weights={"one": 2.0}
            ),
            "has fitted ColumnTransformer",
        ),
        (blocks(("one", "passthrough", slice(0, 4))), "has fitted FunctionTransformer"),
    ],
)
def test_what_cannot_be_kept_is_refused(transformer, message):
    transformer.fit(features(0, 30, 6))
    with pytest.raises(ConfigError, match=message):
        to_state(transformer)


@pytest.mark.parametrize("change", [{"estimator": "os.system"}, {"parts": [{}]}, {"parts": 3}])
def test_a_state_that_nobody_saved_is_an_error_and_nothing_else(change):
    structure, arrays = to_state(make_pipeline(StandardScaler()).fit(features(0, 9, 3)))
    with pytest.raises((ValueError, KeyError, TypeError)):
        from_state(structure | change, arrays)
