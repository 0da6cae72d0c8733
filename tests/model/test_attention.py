"""Ragged attention equals loops and padded attention."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mmctr.model.attention import Histories, MLPTargetAttention, MultiHeadTargetAttention
from tests.model.ragged import LENGTHS, WIDTH, close, random_inputs, slices


def padded_attention(layer, targets, table, histories):
    """Multi-head target attention on histories padded to the longest, the padding masked."""
    lengths = histories.offsets.diff()
    longest = max(1, int(lengths.max()))
    mask = torch.arange(longest) < lengths[:, None]
    positions = torch.zeros(mask.shape, dtype=torch.int64)
    positions[mask] = histories.items
    clicked = table[positions]
    query = layer.query(targets).view(-1, layer.heads, 1, layer.head_dim)
    key = layer.key(clicked).view(len(targets), longest, layer.heads, -1).transpose(1, 2)
    value = layer.value(clicked).view(len(targets), longest, layer.heads, -1).transpose(1, 2)
    score = (query * key).sum(-1) / np.sqrt(layer.head_dim)
    if layer.recency is not None:
        ages = (lengths[:, None] - 1 - torch.arange(longest)).clamp(min=0)
        score = score + layer.recency[ages].transpose(1, 2)
    weight = score.masked_fill(~mask[:, None], -1e9).softmax(-1) * mask[:, None]
    return (weight.unsqueeze(-1) * value).sum(2).flatten(1)


def all_gradients(loss, layer, *inputs):
    """The gradients of a loss by the inputs and the layer's parameters."""
    return torch.autograd.grad(loss, [*inputs, *layer.parameters()])


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=6),
    heads=st.integers(1, 3),
    max_age=st.sampled_from([0, 6, 9]),
    seed=st.integers(0, 1000),
)
def test_ragged_attention_equals_padded_attention(lengths, heads, max_age, seed):
    torch.manual_seed(seed)
    layer = MultiHeadTargetAttention(WIDTH, heads, head_dim=4, value_dim=3, max_age=max_age)
    targets, table, histories = random_inputs(lengths, seed=seed)
    found = layer(targets, table, histories)
    expected = padded_attention(layer, targets, table, histories)
    assert found.shape == (len(lengths), layer.interest_width)
    close(found, expected)
    assert not found[torch.tensor(lengths) == 0].any()
    weigh = torch.randn(found.shape)
    gradients = all_gradients((found * weigh).sum(), layer, targets, table)
    references = all_gradients((expected * weigh).sum(), layer, targets, table)
    for gradient, reference in zip(gradients, references, strict=True):
        assert gradient.isfinite().all()
        close(gradient, reference, tolerance=1e-4)


@pytest.mark.parametrize("clicks", [0, 1, 5])
@pytest.mark.parametrize("kind", ["dot", "dot with recency", "mlp"])
def test_one_history_for_all_targets_equals_a_copy_for_each(kind, clicks):
    torch.manual_seed(0)
    if kind != "mlp":
        max_age = 7 if "recency" in kind else 0
        layer = MultiHeadTargetAttention(WIDTH, heads=2, head_dim=3, value_dim=2, max_age=max_age)
    else:
        layer = MLPTargetAttention(WIDTH, 2, (6,), dropout=0.0)
    targets, table, one = random_inputs([clicks])
    targets = torch.randn(4, WIDTH, requires_grad=True)
    each = Histories.of(one.items.repeat(4), torch.full((4,), clicks))
    found, expected = layer(targets, table, one), layer(targets, table, each)
    close(found, expected)
    close(layer.weights(targets, table, one), layer.weights(targets, table, each))
    weigh = torch.randn(found.shape)
    gradients = all_gradients((found * weigh).sum(), layer, targets, table)
    references = all_gradients((expected * weigh).sum(), layer, targets, table)
    for gradient, reference in zip(gradients, references, strict=True):
        close(gradient, reference)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_attention_weights_of_a_row_sum_to_1(lengths):
    layer = MultiHeadTargetAttention(WIDTH, heads=2, head_dim=3, value_dim=2)
    targets, table, histories = random_inputs(lengths)
    weights = layer.weights(targets, table, histories).detach()
    for clicks in slices(histories):
        if clicks.start < clicks.stop:
            close(weights[clicks].sum(0), torch.ones(2))


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    heads=st.integers(1, 2),
    hidden=st.sampled_from([(6,), (6, 4)]),
)
def test_mlp_attention_is_the_mlp_of_q_k_difference_and_product(lengths, heads, hidden):
    torch.manual_seed(0)
    layer = MLPTargetAttention(WIDTH, heads, hidden, dropout=0.5).eval()
    targets, table, histories = random_inputs(lengths)
    linear = [layer.first, *(m for m in layer.rest if isinstance(m, torch.nn.Linear))]
    assert len(linear) == len(hidden) + 1
    expected = torch.zeros(len(lengths), heads * WIDTH)
    for row, clicks in enumerate(slices(histories)):
        for item in histories.items[clicks]:
            query, key = targets[row], table[item]
            x = torch.cat([query, key, query - key, query * key])
            for step in linear[:-1]:
                x = F.relu(step(x))
            weight = linear[-1](x)
            expected[row] = expected[row] + torch.outer(weight, key).flatten()
    found = layer(targets, table, histories)
    assert found.shape[1] == layer.interest_width
    close(found, expected)
    if expected.requires_grad:  # there is a click
        weigh = torch.randn(found.shape)
        gradients = all_gradients((found * weigh).sum(), layer, targets, table)
        references = all_gradients((expected * weigh).sum(), layer, targets, table)
        for gradient, reference in zip(gradients, references, strict=True):
            close(gradient, reference, tolerance=1e-4)
