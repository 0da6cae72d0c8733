"""Products, sums and softmax over ragged lists equal loops, forward and backward."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mmctr.model.ragged import Ragged, gather
from tests.model.ragged import LENGTHS, N_ITEMS, close, random_histories, slices

ROWS = st.lists(st.integers(0, 5), min_size=1, max_size=6)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_lists_name_each_places_row(lengths):
    histories = random_histories(lengths)
    assert histories.offsets.tolist() == [0, *np.cumsum(lengths)]
    assert histories.rows.tolist() == [r for r, n in enumerate(lengths) for _ in range(n)]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_softmax_is_that_of_each_row_and_column(lengths):
    histories = random_histories(lengths)
    scores = 30 * torch.randn(sum(lengths), 3, generator=torch.Generator().manual_seed(1))
    expected = [scores[clicks].softmax(dim=0) for clicks in slices(histories)]
    close(histories.softmax(scores), torch.cat(expected))


def test_softmax_does_not_overflow():
    scores = torch.tensor([[1000.0], [999.0], [-1000.0]])
    high = 1 / (1 + np.exp(-1))
    found = random_histories([2, 1]).softmax(scores)
    np.testing.assert_allclose(found.numpy(), [[high], [1 - high], [1]], rtol=1e-6)


def test_softmax_has_the_right_gradient():
    histories = random_histories([2, 0, 3])
    scores = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(histories.softmax, scores)


def random_double(*shape, seed):
    """Normal numbers in float64, with gradients."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)


def gradients(result, *inputs):
    """Of a sum of the result, weighed at random, by each input."""
    weigh = torch.randn(result.shape, generator=torch.Generator().manual_seed(9))
    return torch.autograd.grad((result * weigh).sum(), inputs, allow_unused=True)


def agree(found, expected, *inputs):
    """Assert that two results and their gradients are equal; a gradient may be of nothing."""
    close(found, expected)
    for own, reference in zip(gradients(found, *inputs), gradients(expected, *inputs), strict=True):
        close(own, torch.zeros_like(own) if reference is None else reference)


@given(lengths=ROWS, heads=st.integers(1, 3), seed=st.integers(0, 99))
def test_dots_are_a_loop_over_places(lengths, heads, seed):
    lists = random_histories(lengths, seed=seed)
    vectors = random_double(len(lengths), 2 * heads, seed=1)
    table = random_double(N_ITEMS, 2 * heads, seed=2)
    expected = torch.zeros(sum(lengths), heads, dtype=torch.float64) + 0 * vectors.sum()
    for place, (row, item) in enumerate(zip(lists.rows, lists.items, strict=True)):
        for head in range(heads):
            columns = slice(2 * head, 2 * head + 2)
            expected[place, head] = vectors[row, columns] @ table[item, columns]
    agree(lists.dots(vectors, table, heads), expected, vectors, table)


@pytest.mark.parametrize(("rows", "items"), [(1, 1), (2, 1), (1, 2)])
def test_an_item_may_be_in_a_row_again_and_again(rows, items):
    """More places than there are pairs of a row and an item."""
    places = torch.arange(5 * rows) % items
    lists = Ragged.of(places, torch.full((rows,), 5))
    vectors, table = random_double(rows, 2, seed=1), random_double(items, 2, seed=2)
    expected = (vectors.repeat_interleave(5, 0) * table[places]).sum(1, keepdim=True)
    agree(lists.dots(vectors, table), expected, vectors, table)


@given(lengths=ROWS, heads=st.integers(1, 3), seed=st.integers(0, 99))
def test_weighted_sums_are_a_loop_over_places(lengths, heads, seed):
    lists = random_histories(lengths, seed=seed)
    weights = random_double(sum(lengths), heads, seed=1)
    table = random_double(N_ITEMS, 2 * heads, seed=2)
    expected = torch.zeros(len(lengths), 2 * heads, dtype=torch.float64) + 0 * table.sum()
    for place, (row, item) in enumerate(zip(lists.rows, lists.items, strict=True)):
        expected[row] += weights[place].repeat_interleave(2) * table[item]
    agree(lists.weighted_sum(table, weights), expected, table, weights)


@given(rows=st.lists(st.integers(0, 3), max_size=9))
def test_gathered_rows_have_the_gradient_of_a_lookup(rows):
    table, rows = random_double(5, 2, seed=0), torch.tensor(rows, dtype=torch.int64)
    agree(gather(table, rows), F.embedding(rows, table), table)
    pairs = torch.stack([rows, rows.flip(0)], dim=1)
    agree(gather(table, pairs), F.embedding(pairs, table), table)


def test_halves_are_summed_in_float32():
    table = torch.ones(N_ITEMS, 2, dtype=torch.bfloat16, requires_grad=True)
    lists = random_histories([1000])
    sums = lists.weighted_sum(table, torch.ones(1000, 1))
    close(sums, torch.full((1, 2), 1000.0))  # bfloat16 would end at 256
    assert gather(table, lists.items).dtype == torch.float32
