"""Blocks are divided by one number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmctr.content.scaling import RootMeanSquareScaler

BLOCKS = arrays(np.float64, (5, 3), elements=st.floats(0.01, 100))


@given(BLOCKS)
def test_a_block_has_a_root_mean_square_of_1_and_keeps_its_shape(block):
    found = RootMeanSquareScaler().fit_transform(block)
    assert np.sqrt(np.mean(found.astype(np.float64) ** 2)) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(found / found[0, 0], block / block[0, 0], rtol=1e-5)


def test_what_comes_later_is_divided_by_the_same_number():
    scaler = RootMeanSquareScaler().fit(np.array([[3.0, 4.0], [0.0, 5.0]]))
    np.testing.assert_allclose(scaler.transform(np.array([[1.0]])), 1 / np.sqrt(12.5))


def test_a_block_of_zeros_is_left_alone():
    assert not RootMeanSquareScaler().fit_transform(np.zeros((3, 2))).any()
