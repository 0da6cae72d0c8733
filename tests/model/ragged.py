"""Random histories of every length, and the comparisons of the tests."""

from itertools import pairwise

import torch

from mmctr.model.attention import Histories

WIDTH, N_ITEMS = 5, 7
LENGTHS = [[3], [0], [2, 0, 3], [0, 0, 1, 4, 0], [0, 0]]


def random_histories(lengths, *, seed=0):
    """Histories of the given lengths with random items of a table of N_ITEMS."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.randint(N_ITEMS, (sum(lengths),), generator=generator)
    return Histories.of(items, torch.tensor(lengths, dtype=torch.int64))


def random_inputs(lengths, *, seed=0):
    """Targets [n, WIDTH] and a table [N_ITEMS, WIDTH], both with gradients, and histories."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randn(len(lengths), WIDTH, generator=generator, requires_grad=True)
    table = torch.randn(N_ITEMS, WIDTH, generator=generator, requires_grad=True)
    return targets, table, random_histories(lengths, seed=seed)


def slices(histories):
    """The slice of each row's clicks."""
    offsets = histories.offsets.tolist()
    return [slice(a, b) for a, b in pairwise(offsets)]


def close(found, expected, tolerance=1e-5):
    """Assert that two tensors are equal but for rounding, shapes included."""
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
