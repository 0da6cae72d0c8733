"""Adam of used rows against PyTorch's own, and the average of weights against a loop."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.training.optimizer import Adam, WeightAverage
from tests.forks import together


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


def ours(table, l2, row_updates=True):
    """The optimizer under test."""
    groups = [{"params": [table], "weight_decay": l2}]
    return Adam(groups, row_updates=row_updates, lr=0.1, fused=True)


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


@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_sparse_gradients_may_stand_for_dense_ones(l2):
    found = stepped(lambda table, l2: ours(table, l2, row_updates=False), sparse=True, l2=l2)
    plain = stepped(
        lambda table, l2: torch.optim.Adam([table], lr=0.1, weight_decay=l2), sparse=False, l2=l2
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


def clipped(number, folder):
    """What becomes of the gradients of a process's own rows, and of a weight that all have."""
    table, common = (torch.nn.Parameter(torch.zeros(4, 2)) for _ in range(2))
    rows = torch.tensor([[1, 3, 1], [2, 2, 2]][number])  # some of several processes
    table.grad = torch.sparse_coo_tensor(rows[None], torch.ones(3, 2) * (number + 1), (4, 2))
    common.grad = torch.full((4, 2), 0.5)
    optimizer = Adam([{"params": [table, common]}], sharded=[table], lr=0.1)
    optimizer.clip([table, common], 2.0)
    torch.save((table.grad.to_dense(), common.grad), folder / f"{number}.pt")


def test_of_shared_tables_every_row_counts_once_in_the_norm(tmp_path):
    together(clipped, tmp_path, processes=2)
    of_tables = [[[0, 0], [2, 2], [0, 0], [1, 1]], [[0, 0], [0, 0], [6, 6], [0, 0]]]
    of_tables = torch.tensor(of_tables, dtype=torch.float32)
    norm = (of_tables.square().sum() + 8 * 0.25).sqrt()
    for number in range(2):
        table, common = torch.load(tmp_path / f"{number}.pt")
        torch.testing.assert_close(table, of_tables[number] * 2 / norm)
        torch.testing.assert_close(common, torch.full((4, 2), 0.5) * 2 / norm)


def averaged_model(*, sparse):
    """A small model, and an average of its weights with decay 0.6."""
    torch.manual_seed(0)
    sizes = {"n_items": 4, "tags_per_item": 2, "n_tags": 3, "content_width": 2}
    model = DIN.of_sizes(DINConfig(embedding_dim=4, hidden=(3,)), **sizes)
    model.embedding.sparse_gradients(sparse)
    return model, WeightAverage(model, 0.6, row_updates=sparse)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_average_forgets_as_its_decay_says_and_faster_at_first(sparse):
    model, average = averaged_model(sparse=sparse)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    expected = {name: weight.detach().clone() for name, weight in weights.items()}
    for decay in (
        0.1,
        2 / 11,
        3 / 12,
        4 / 13,
        5 / 14,
        6 / 15,
        7 / 16,
        8 / 17,
        9 / 18,
        10 / 19,
        0.6,
    ):
        for name, weight in weights.items():
            with torch.no_grad():
                weight.add_(torch.randn(weight.shape))
            expected[name] = decay * expected[name] + (1 - decay) * weight.detach()
        # As many updates later the decay has reached its limit.
        if decay == 0.6:
            average.updates = 100
        average.update()
    if sparse:
        expected["embedding.id.weight"] = model.embedding.id.weight.detach().clone()
    last = copy.deepcopy(model.state_dict())
    with average.in_place():
        for name, weight in weights.items():
            torch.testing.assert_close(weight.detach(), expected[name])
    torch.testing.assert_close(dict(model.state_dict()), dict(last))


def test_without_decay_nothing_is_averaged():
    model, _ = averaged_model(sparse=False)
    average = WeightAverage(model, 0.0)
    before = copy.deepcopy(model.state_dict())
    average.update()
    with average.in_place():
        torch.testing.assert_close(dict(model.state_dict()), dict(before))
    assert not average.live
