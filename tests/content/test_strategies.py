"""What every strategy promises: registering one is enough to have it tested."""

from dataclasses import replace

import numpy as np
import pytest

from mmctr.content.fusion import available_strategies, embed, vectors
from mmctr.content.strategies import (
    IDS,
    PROVIDED,
    STRATEGIES,
    choices,
    in_words,
    require_known,
)
from mmctr.errors import ConfigError
from mmctr.evaluation.similarity import nearest
from tests.checkerboard import KIND, checkerboard

DIM = 8


@pytest.fixture(scope="module", params=STRATEGIES)
def strategy(request):
    return request.param


@pytest.fixture(scope="module")
def embedding(strategy, tiny):
    return seen(tiny.catalog, strategy, DIM, tiny.clicks)


def seen(catalog, strategy, dim, clicks):
    """What items look like to a strategy."""
    return vectors(*embed(catalog, strategy, dim, clicks))


class TestPromises:
    """Finite, row 0 zero, the same twice and in any order, one sentence for what is missing."""

    def test_every_item_has_finite_numbers_and_padding_has_zeros(self, embedding, tiny):
        assert embedding.dtype == np.float32
        assert embedding.shape == (tiny.catalog.n_items + 1, DIM)
        assert np.isfinite(embedding).all()
        assert not embedding[0].any()
        assert embedding[1:].any(axis=1).all()

    def test_repetition_gives_the_very_same_result(self, strategy, embedding, tiny):
        assert np.array_equal(embedding, seen(tiny.catalog, strategy, DIM, tiny.clicks))

    def test_the_order_of_the_items_does_not_matter(self, strategy, embedding, tiny):
        order = np.r_[0, 1 + np.random.default_rng(0).permutation(tiny.catalog.n_items)]
        number = np.argsort(order).astype(np.int32)
        moved = tiny.clicks
        moved = replace(
            moved, target=number[moved.target], history_items=number[moved.history_items]
        )
        catalog = replace(
            tiny.catalog,
            text_features=tiny.catalog.text_features[order],
            image_features=tiny.catalog.image_features[order],
        )
        found = seen(catalog, strategy, DIM, moved)
        # Of a component the sign is arbitrary; what items have to do with each other is not.
        np.testing.assert_allclose(
            found @ found.T, (embedding @ embedding.T)[np.ix_(order, order)], atol=1e-3
        )

    def test_what_it_needs_and_is_not_there_is_one_sentence(self, strategy, tiny):
        bare = replace(tiny.catalog, text_features=None, image_features=None, provided={})
        assert strategy not in available_strategies(bare)
        with pytest.raises(ConfigError, match=rf"'{strategy}' needs .* features.*choose ids\.$"):
            embed(bare, strategy, DIM, tiny.clicks)

    def test_items_of_a_kind_lie_together(self, strategy, tmp_path):
        """A checkerboard: the nearest neighbour of every item is of its own kind."""
        board = checkerboard(tmp_path)
        found = seen(board.catalog, strategy, 4, board.clicks)
        kinds = [KIND[nearest(found, item, 1)[0]] for item in range(1, len(KIND))]
        assert kinds == KIND[1:].tolist()


def test_every_name_is_said_and_known():
    names = [*STRATEGIES, IDS, f"{PROVIDED}COLUMN"]
    assert choices().replace(" or ", ", ").split(", ") == names
    for name in names:
        require_known(name)


@pytest.mark.parametrize("name", ["v9", "", "V4", "provided", 4, None])
def test_an_unknown_name_is_one_sentence_with_all_that_there_are(name):
    with pytest.raises(ConfigError) as raised:
        require_known(name)
    assert str(raised.value) == (
        f"Strategy {name!r} is unknown: choose one of v1, v2, v3, v4, v5, v6, ids or "
        "provided:COLUMN."
    )


@pytest.mark.parametrize("name", [*STRATEGIES, IDS, f"{PROVIDED}mine"])
def test_what_a_strategy_is_can_be_said_in_one_line(name):
    words = in_words(name)
    assert 10 < len(words) < 90 and "\n" not in words and not words.endswith(".")
    assert name != f"{PROVIDED}mine" or words.endswith(" mine")
