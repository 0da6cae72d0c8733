"""Adam of used rows against PyTorch's SparseAdam, Adam, and a loop."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmctr.training.optimizer import Adam


def stepped(make, *, sparse, l2=0.0, steps=6):
    """A table [6, 3] after steps on random rows 1 to 4, and the rows of each step."""
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(6, 3))
    optimizer = make(table, l2)
    for _ in range(steps):
        rows = torch.randperm(4)[:2] + 1
        weigh = torch.randn(2, 3)
        optimizer.zero_grad()
        (F.embedding(rows, table, sparse=sparse) * weigh).sum().backward()
        optimizer.step()
    return table.detach()


def ours(table, l2):
    """The optimizer under test."""
    return Adam([{"params": [table], "weight_decay": l2}], lr=0.1, fused=True)


def test_rows_are_updated_as_by_sparse_adam():
    found = stepped(ours, sparse=True)
    reference = stepped(lambda table, l2: torch.optim.SparseAdam([table], lr=0.1), sparse=True)
    torch.testing.assert_close(found, reference)


def test_dense_gradients_are_plain_adam():
    found = stepped(ours, sparse=False, l2=0.01)
    plain = stepped(
        lambda table, l2: torch.optim.Adam([table], lr=0.1, weight_decay=l2), sparse=False, l2=0.01
    )
    torch.testing.assert_close(found, plain)


def test_if_every_row_is_used_rows_and_dense_updates_agree():
    torch.manual_seed(0)
    sparse = torch.nn.Parameter(torch.randn(4, 3))
    dense = copy.deepcopy(sparse)
    optimizers = [ours(table, 0.05) for table in (sparse, dense)]
    for _ in range(5):
        weigh = torch.randn(4, 3)
        for table, optimizer in zip((sparse, dense), optimizers, strict=True):
            optimizer.zero_grad()
            rows = F.embedding(torch.arange(4), table, sparse=table is sparse)
            (rows * weigh).sum().backward()
            optimizer.step()
    torch.testing.assert_close(sparse, dense)


def test_unused_rows_and_their_moments_stay():
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(6, 3))
    optimizer, before = ours(table, 1.0), table.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        F.embedding(torch.tensor([1, 4]), table, sparse=True).sum().backward()
        optimizer.step()
    unused = [0, 2, 3, 5]
    assert torch.equal(table[unused], before[unused])
    assert not (table[[1, 4]] == before[[1, 4]]).any()
    for name in ("exp_avg", "exp_avg_sq"):
        assert not optimizer.state[table][name][unused].any()


@pytest.mark.parametrize("repeated", [[2, 2, 2], [1, 2, 1]])
def test_gradients_of_a_repeated_row_are_summed(repeated):
    table = torch.nn.Parameter(torch.zeros(4, 1))
    optimizer = ours(table, 0.0)
    F.embedding(torch.tensor(repeated), table, sparse=True).sum().backward()
    optimizer.step()
    moment = optimizer.state[table]["exp_avg"].flatten().numpy()
    np.testing.assert_allclose(moment, 0.1 * np.bincount(repeated, minlength=4), rtol=1e-6)
