"""Strategies against a singular value decomposition in NumPy, at double precision."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmctr.content import fusion, strategies
from mmctr.data.catalog import Catalog, load_catalog
from mmctr.data.impressions import Impressions
from mmctr.errors import ConfigError

DIM = 6


def make_catalog(text=None, image=None, n_items=40):
    """A catalog of nothing but features, row 0 zero."""
    none = np.zeros(n_items + 1, dtype=np.int8)
    return Catalog(
        tags=np.zeros((n_items + 1, 5), dtype=np.int32),
        likes_level=none,
        views_level=none,
        titles=np.full(n_items + 1, "", dtype=object),
        covers={},
        text_features=text,
        image_features=image,
    )


def embedded(catalog, strategy, dim=128):
    """The item embedding of a catalog; its clicks are few and drawn by chance."""
    rng, start = np.random.default_rng(0), np.arange(200)
    history, target = rng.integers(1, max(2, catalog.n_items), (2, 200)).astype(np.int32)
    clicks = Impressions(start, target, np.ones(200, np.float32), start, start + 1, history)
    return fusion.embed(catalog, strategy, dim, clicks)[0]


def random_features(width, *, seed, scale=1.0, offset=0.0, n_items=40):
    """Features whose principal directions are well apart, row 0 zero."""
    rng = np.random.default_rng(seed)
    mixing = np.linalg.qr(rng.normal(size=(width, width)))[0]
    values = rng.normal(size=(n_items, width)) * np.geomspace(1, 0.05, width) @ mixing + offset
    return np.vstack([np.zeros(width), scale * values]).astype(np.float32)


def reference(features, components):
    """Principal components of rows 1.. by SVD, divided by their root mean square."""
    centred = features[1:].astype(np.float64)
    centred -= centred.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    scores = (left * singular)[:, :components]
    return scores / np.sqrt(np.mean(scores**2))


def equal_up_to_signs(found, expected, tolerance=1e-4):
    """Assert that each column is the expected one or its negative."""
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=tolerance)


@pytest.fixture(scope="module")
def catalog():
    """Text features of width 12 on another scale than image features of width 9."""
    return make_catalog(
        random_features(12, seed=1, scale=9.0, offset=0.3), random_features(9, seed=2, scale=0.1)
    )


@pytest.mark.parametrize(
    ("strategy", "blocks"),
    [
        ("v1", [("text", 6)]),
        ("v2", [("image", 6)]),
        ("v3", [("joint", 6)]),
        ("v4", [("text", 3), ("image", 3)]),
    ],
)
def test_strategies_are_principal_components_of_their_blocks(catalog, strategy, blocks):
    features = {
        "text": catalog.text_features,
        "image": catalog.image_features,
        "joint": np.hstack([catalog.text_features, catalog.image_features]),
    }
    found = embedded(catalog, strategy, dim=DIM)
    assert found.dtype == np.float32
    assert found.shape == (41, DIM)
    assert not found[0].any()
    expected = np.hstack([reference(features[name], width) for name, width in blocks])
    equal_up_to_signs(found[1:], expected)


def test_v4_gives_an_odd_column_to_the_image(catalog):
    found = embedded(catalog, "v4", dim=5)[1:]
    expected = [reference(catalog.text_features, 2), reference(catalog.image_features, 3)]
    equal_up_to_signs(found, np.hstack(expected))


def test_features_far_from_zero_lose_no_precision():
    """Encoders have a large common offset; float32 must not cancel the differences."""
    features = random_features(12, seed=3, offset=100.0, n_items=500)
    found = embedded(make_catalog(features, n_items=500), "v1", dim=DIM)
    equal_up_to_signs(found[1:], reference(features, DIM), tolerance=1e-3)


def test_the_order_of_rows_in_the_file_does_not_matter(catalog, tmp_path):
    table = pa.table(
        {
            "item_id": np.arange(1, 41),
            "item_tags": np.zeros((40, 5), dtype=int).tolist(),
            "txt_emb_BERT": catalog.text_features[1:].tolist(),
            "img_emb_CLIPRN50": catalog.image_features[1:].tolist(),
        }
    )
    order = np.random.default_rng(0).permutation(40)
    pq.write_table(table.take(order), tmp_path / "item_feature.parquet")
    permuted = load_catalog(tmp_path)
    for strategy in strategies.STRATEGIES:
        assert np.array_equal(
            embedded(permuted, strategy, dim=DIM),
            embedded(catalog, strategy, dim=DIM),
        )


def test_provided_columns_are_scaled_by_one_number(tiny):
    values = tiny.catalog.provided_embedding("item_emb_d128")
    found = fusion.item_embeddings(tiny, "provided:item_emb_d128", dim=16)
    assert found.shape == values.shape
    assert not found[0].any()
    scale = np.sqrt(np.mean(values[1:].astype(np.float64) ** 2))
    np.testing.assert_allclose(found, values / scale, rtol=1e-5)


def test_explained_variance_is_the_cumulated_share_of_squared_singular_values(catalog):
    _, transformer = fusion.embed(catalog, "v4", dim=DIM)
    found = fusion.explained_variance(transformer)
    assert set(found) == {"text", "image"}
    for name, features in (("text", catalog.text_features), ("image", catalog.image_features)):
        centred = features[1:].astype(np.float64) - features[1:].mean(axis=0, dtype=np.float64)
        variance = np.linalg.svd(centred, compute_uv=False) ** 2
        np.testing.assert_allclose(
            found[name], np.cumsum(variance)[: DIM // 2] / variance.sum(), rtol=1e-4
        )


def test_provided_columns_explain_no_variance(tiny):
    _, transformer = fusion.embed(tiny.catalog, "provided:item_emb_d128")
    assert fusion.explained_variance(transformer) == {}


@pytest.mark.parametrize(
    ("text", "image", "available"),
    [
        (True, True, ["v1", "v2", "v3", "v4", "v5", "v6"]),
        (True, False, ["v1", "v5", "v6"]),
        (False, True, ["v2", "v5", "v6"]),
        (False, False, []),
    ],
)
def test_available_strategies_are_those_with_features(catalog, text, image, available):
    part = make_catalog(
        catalog.text_features if text else None, catalog.image_features if image else None
    )
    assert fusion.available_strategies(part) == available
    for strategy in strategies.STRATEGIES:
        if strategy in available:
            fusion.check_strategy(part, strategy)
        else:
            listed = f"choose one of {', '.join(available)}" if available else "extract features"
            with pytest.raises(ConfigError, match=listed):
                embedded(part, strategy, dim=DIM)


def test_available_strategies_name_provided_columns(tiny):
    expected = ["v1", "v2", "v3", "v4", "v5", "v6", "provided:item_emb_d128"]
    assert fusion.available_strategies(tiny.catalog) == expected


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("v9", "Strategy 'v9' is unknown: choose one of v1, v2, v3, v4"),
        ("", "Strategy '' is unknown: choose one of v1, v2, v3, v4"),
        ("provided:other", "names a column that neither .* has: choose one of v1, v2, v3, v4"),
    ],
)
def test_unknown_names_list_what_there_is(catalog, strategy, message):
    with pytest.raises(ConfigError, match=message):
        embedded(catalog, strategy, dim=DIM)


def test_missing_features_are_named(catalog):
    with pytest.raises(ConfigError, match="'v4' needs image features, which item_feature"):
        embedded(make_catalog(catalog.text_features), "v4", dim=DIM)


@pytest.mark.parametrize(("strategy", "dim"), [("v1", 0), ("v1", -1), ("v4", 1)])
def test_dims_without_a_component_for_each_block_are_refused(catalog, strategy, dim):
    with pytest.raises(ConfigError, match="at least 1"):
        embedded(catalog, strategy, dim=dim)


@pytest.mark.parametrize(
    ("n_items", "text", "image", "widths", "sentences"),
    [
        # The narrower of items and features limits each block on its own.
        (40, 5, 200, {"v1": 5, "v2": 40, "v3": 40, "v4": 5 + 40}, [
            "v1 keeps 5 text components instead of 128, as many as there are.",
            "v2 keeps 40 image components instead of 128, as many as there are.",
            "v3 keeps 40 joint components instead of 128, as many as there are.",
            "v4 keeps 5 text components instead of 64 and 40 image components instead of 64, "
            "as many as there are.",
        ]),
        (200, 70, 64, {"v1": 70, "v2": 64, "v3": 128, "v4": 128}, [
            "v1 keeps 70 text components instead of 128, as many as there are.",
            "v2 keeps 64 image components instead of 128, as many as there are.",
        ]),
        (12, 20, 30, {"v1": 12, "v2": 12, "v3": 12, "v4": 24}, None),
        (2, 20, 30, {"v1": 2, "v2": 2, "v3": 2, "v4": 4}, None),
        (1, 20, 30, {"v1": 1, "v2": 1, "v3": 1, "v4": 2}, None),
        (40, 1, 1, {"v1": 1, "v2": 1, "v3": 2, "v4": 2}, None),
        (1, 1, 1, {"v1": 1, "v2": 1, "v3": 1, "v4": 2}, [
            "v1 keeps 1 text component instead of 128, as many as there are.",
            "v2 keeps 1 image component instead of 128, as many as there are.",
            "v3 keeps 1 joint component instead of 128, as many as there are.",
            "v4 keeps 1 text component instead of 64 and 1 image component instead of 64, "
            "as many as there are.",
        ]),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_what_is_narrow_gives_as_many_components_as_there_are_and_says_so(
    n_items, text, image, widths, sentences
):
    features = [random_features(w, seed=w, n_items=n_items, offset=0.7) for w in (text, image)]
    narrow = make_catalog(*features, n_items=n_items)
    for strategy, width in widths.items():
        found, transformer = fusion.embed(narrow, strategy)
        assert found.shape == (n_items + 1, width)
        assert np.isfinite(found).all()
        assert found[1:].any() == (n_items > 1)
        assert not found[0].any()
        for share in fusion.explained_variance(transformer).values():
            assert np.isfinite(share).all()
    if sentences is not None:
        assert fusion.narrowed(narrow, *widths) == " ".join(sentences)


def test_narrow_components_are_those_of_a_singular_value_decomposition(catalog):
    found = embedded(catalog, "v4", dim=20)[1:]
    expected = [reference(catalog.text_features, 10), reference(catalog.image_features, 9)]
    equal_up_to_signs(found, np.hstack(expected))


def test_new_items_are_embedded_as_narrowly(catalog):
    found, transformer = fusion.embed(catalog, "v4")
    again = transformer.transform(np.hstack([catalog.text_features, catalog.image_features]))
    np.testing.assert_allclose(again[1:], found[1:], atol=1e-5)


def test_what_is_wide_enough_is_not_narrowed(catalog, tiny):
    assert fusion.narrowed(catalog, "v1", "v4", dim=9) == ""
    assert fusion.narrowed(tiny.catalog, "ids", "provided:item_emb_d128", dim=999) == ""
    assert fusion.narrowed(make_catalog(), "v1") == ""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("strategy", strategies.STRATEGIES)
@pytest.mark.parametrize("constant", ["all", "text", "some"])
def test_features_without_variance_are_never_nan(catalog, strategy, constant):
    text, image = catalog.text_features.copy(), catalog.image_features.copy()
    text[1:, slice(4 if constant == "some" else None)] = 0.1
    image[1:, : {"all": 9, "text": 0, "some": 4}[constant]] = 7.3
    found, transformer = fusion.embed(make_catalog(text, image), strategy)
    assert np.isfinite(found).all()
    assert found.any() == (constant == "some" or (constant, strategy) in VARY)
    for share in fusion.explained_variance(transformer).values():
        assert np.isfinite(share).all()


VARY = {
    ("text", "v2"),
    ("text", "v3"),
    ("text", "v4"),
    ("text", "v5"),
    ("text", "v6"),
}  # with the image's variance


def test_an_empty_catalog_is_refused():
    with pytest.raises(ConfigError, match="the catalog is empty"):
        embedded(make_catalog(np.zeros((1, 3), np.float32), n_items=0), "v1", dim=2)


def svd_of_all(text, image, dim):
    """A plain pipeline over all features."""
    return make_pipeline(StandardScaler(), TruncatedSVD(dim))


def svd_of_text(text, image, dim):
    """A block that is neither a pipeline nor a PCA."""
    return ColumnTransformer([("text", TruncatedSVD(dim), text)])


def image_beside_text(text, image, dim):
    """Blocks like those of v4, in another order."""
    return ColumnTransformer(list(reversed(strategies.v4(text, image, dim).transformers)))


@pytest.mark.parametrize("function", [svd_of_all, svd_of_text, image_beside_text])
def test_a_function_added_to_the_registry_is_a_strategy(catalog, monkeypatch, function):
    """Any scikit-learn transformer will do, not only those built like v1 to v4."""
    monkeypatch.setitem(strategies.STRATEGIES, "mine", function)
    assert "mine" in fusion.available_strategies(catalog)
    found, transformer = fusion.embed(catalog, "mine", dim=4)
    assert found.shape == (41, 4)
    assert found.any(axis=0).all()
    assert not found[0].any()
    assert isinstance(fusion.explained_variance(transformer), dict)
    text_only = make_catalog(catalog.text_features)
    assert ("mine" in fusion.available_strategies(text_only)) == (function is svd_of_text)


def test_embedding_each_is_embedding_one_by_one(tiny):
    names = ["v1", "v5", "v6"]
    found = fusion.embed_each(tiny.catalog, names, tiny.clicks)
    assert list(found) == names
    for name, (embedding, transformer) in found.items():
        expected, alone = fusion.embed(tiny.catalog, name, clicks=tiny.clicks)
        np.testing.assert_array_equal(embedding, expected)
        looks = fusion.vectors(embedding, transformer)
        np.testing.assert_array_equal(looks, fusion.vectors(expected, alone))
