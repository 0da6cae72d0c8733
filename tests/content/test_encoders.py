"""One more title or picture is encoded as extraction did."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmctr.content.encoders import Encoders
from mmctr.content.extract import extract
from mmctr.data import schema
from mmctr.data.catalog import load_catalog
from mmctr.errors import ConfigError, ModelNotFoundError

COLUMNS = (schema.TEXT_COLUMN, schema.IMAGE_COLUMN)


@pytest.fixture(scope="module", params=["auto", "mean"])
def extracted(request, bert, clip, make_items, tmp_path_factory):
    """A catalog and what is known of its encoders."""
    folder = make_items(tmp_path_factory.mktemp("items") / "items", items=6)
    models = {"text_model": str(bert), "image_model": str(clip), "pooling": request.param}
    extract(folder, **models, batch_size=3, workers=0, say=lambda line: None)
    metadata = pq.read_schema(folder / "item_feature.parquet").metadata
    return load_catalog(folder), json.loads(metadata[schema.ENCODERS])


def test_titles_and_covers_have_the_vectors_of_the_dataset(extracted):
    catalog, facts = extracted
    encoders = Encoders(facts, *COLUMNS)
    for item in (1, 5):
        text, image = (
            encoders.text(catalog.titles[item]),
            encoders.image(catalog.covers[item]),
        )
        np.testing.assert_allclose(text, catalog.text_features[item], atol=1e-5)
        np.testing.assert_allclose(image, catalog.image_features[item], atol=1e-5)
    assert not encoders.text("").any()


def test_encoders_that_are_not_those_are_refused(extracted):
    _, facts = extracted
    with pytest.raises(ConfigError, match="does not say by which encoder its text features"):
        Encoders({}, *COLUMNS).text("a")
    own = facts[schema.TEXT_COLUMN]
    other = {schema.TEXT_COLUMN: own | {"weights": "0" * 16}}
    with pytest.raises(ConfigError, match="has other weights than the one that made"):
        Encoders(other, *COLUMNS).text("a")
    gone = {schema.TEXT_COLUMN: own | {"model": "/nowhere/bert"}}
    with pytest.raises(ModelNotFoundError):
        Encoders(gone, *COLUMNS).text("a")
