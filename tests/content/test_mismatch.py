"""Text and image at odds: pairs that were swapped, among pairs whose making is known."""

import numpy as np
import pytest

from mmctr.content.mismatch import LEAST, at_odds


def pairs(n, shared, rng, noise=0.3):
    """Text and image features of items with `shared` numbers in common; row 0 is padding."""
    both = rng.normal(size=(n, shared))
    media = []
    for width in (30, 20):
        own = np.hstack([both, rng.normal(size=(n, 4))])
        features = own @ rng.normal(size=(own.shape[1], width))
        media.append(features + noise * rng.normal(size=features.shape))
    return [np.vstack([np.zeros(one.shape[1]), one]).astype(np.float32) for one in media]


@pytest.fixture
def swapped():
    """Pairs of which items 1 to 30 have another one's image."""
    text, image = pairs(1200, 6, np.random.default_rng(0))
    image[1:31] = np.roll(image[1:31], 1, axis=0)
    known = np.arange(len(text)) > 0
    return text, image, known


def test_swapped_pairs_are_likelier_by_chance(swapped):
    odds = at_odds(*swapped)
    assert np.isnan(odds[0])
    assert (odds[1:31] > 6.9).mean() >= 0.8
    assert (odds[31:] > 6.9).mean() <= 0.002, "a thousand to one, as the number says"


def test_scale_and_offset_of_features_make_no_difference(swapped):
    text, image, known = swapped
    again = at_odds(50 * text + 3, image / 9 - 1, known)
    np.testing.assert_allclose(again[1:], at_odds(text, image, known)[1:], atol=0.05)


def test_where_text_says_nothing_of_the_image_nothing_is_found():
    text, image = pairs(1200, 6, np.random.default_rng(1))
    image[1:] = np.random.default_rng(2).permutation(image[1:])
    odds = at_odds(text, image, np.arange(len(text)) > 0)
    assert np.abs(odds[1:]).max() < 6.9


def test_items_that_are_not_known_get_none(swapped):
    text, image, known = swapped
    known[5] = False
    odds = at_odds(text, image, known)
    assert np.flatnonzero(np.isnan(odds)).tolist() == [0, 5]


def test_few_items_do_not_tell(swapped):
    text, image, known = swapped
    known[LEAST:] = False
    assert at_odds(text, image, known) is None


def test_constant_columns_and_fewer_numbers_than_components(swapped):
    text, image, known = swapped
    text[:, 7] = 1
    odds = at_odds(text, image[:, :3], known)
    assert np.isfinite(odds[1:]).all()
