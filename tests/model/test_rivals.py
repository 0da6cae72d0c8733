"""The rivals' layers against padded and masked computations, and all pairs, at double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from mmctr.errors import ConfigError
from mmctr.model import rivals
from mmctr.model.attention import Histories
from mmctr.model.rivals import (
    CrossAttention,
    InvertedTransformerInterest,
    QuadraticNetwork,
    ReLUTargetAttention,
    TransformerInterest,
    pairwise_loss,
)
from tests.model.ragged import N_ITEMS, random_histories

WIDTH = 6


LONGEST = 5


def padded(table, histories):
    """Clicked vectors [n, LONGEST, width], padded on the left, and where clicks are, bool."""
    lengths, longest = histories.offsets.diff(), LONGEST
    inside = torch.arange(longest) >= longest - lengths[:, None]
    positions = torch.zeros(inside.shape, dtype=torch.int64)
    positions[inside] = histories.items
    return table[positions] * inside[:, :, None], inside


def transformer(layer, targets, table, histories):
    """momo's interest by PyTorch's own encoder, clicks padded and the padding masked."""
    clicked, inside = padded(table, histories)
    inside = ~inside if isinstance(layer, InvertedTransformerInterest) else inside.clone()
    inside[~inside.any(dim=1), -1] = True  # as published: of nothing the last place is read
    tokens = torch.cat([clicked, targets[:, None].expand_as(clicked)], dim=2)
    for own in layer.layers:
        encoder = nn.TransformerEncoderLayer(
            2 * WIDTH, own.heads, own.deep[0].out_features, dropout=0.0, batch_first=True
        )
        names = {
            "self_attn.in_proj": own.inward,
            "self_attn.out_proj": own.outward,
            "linear1": own.deep[0],
            "linear2": own.deep[2],
            "norm1": own.attended_norm,
            "norm2": own.norm,
        }
        weights = {}
        for name, module in names.items():
            mark = "_" if name.endswith("in_proj") else "."
            weights |= {f"{name}{mark}{part}": value for part, value in module.named_parameters()}
        tokens = torch.func.functional_call(
            encoder.double(), weights, (tokens,), {"src_key_padding_mask": ~inside}
        )
    shown = F.pad(tokens.masked_fill(~inside[:, :, None], 0), (0, 0, layer.last, 0))
    highest = tokens.masked_fill(~inside[:, :, None], -1e9).amax(dim=1)
    return torch.cat([shown[:, -layer.last :].flatten(1), layer.pooled(highest)], dim=1)


def relu_attention(layer, targets, table, histories):
    """QIN's interest with scores of padding set to zero."""
    clicked, inside = padded(table, histories)
    query, key, value = layer.query(targets), layer.key(clicked), layer.value(clicked)
    heads = layer.heads
    query, key, value = (x.unflatten(-1, (heads, -1)) for x in (query, key, value))
    scores = torch.einsum("nhd,nlhd->nlh", query, key) / query.shape[2] ** 0.5
    weights = (scores * inside[:, :, None]).relu()
    return layer.output(torch.einsum("nlh,nlhd->nhd", weights, value).flatten(1)) + targets


def cross_attention(layer, targets, table, histories):
    """MMCTRers' interest by PyTorch's scaled dot products under a mask."""
    clicked, inside = padded(table, histories)
    for own in layer.layers:
        shapes = (own.query(targets)[:, None], own.key(clicked), own.value(clicked))
        query, key, value = (x.unflatten(2, (own.heads, -1)).transpose(1, 2) for x in shapes)
        score = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
        weight = score.masked_fill(~inside[:, None, None], -1e9).softmax(-1) * inside[:, None, None]
        found = own.found_norm(own.outward((weight @ value)[:, :, 0].flatten(1)))
        targets = own.attended_norm(targets + found)
        deep = own.deep[2](F.relu(own.deep[0](targets)))
        targets = own.norm(targets + deep)
    return targets


SIZES = {"layers": 2, "feed_forward": 5, "dropout": 0.0, "last": 3}
LAYERS = {
    "transformer": (lambda heads: TransformerInterest(WIDTH, heads=heads, **SIZES), transformer),
    "inverted": (
        lambda heads: InvertedTransformerInterest(WIDTH, LONGEST, heads=heads, **SIZES),
        transformer,
    ),
    "relu": (lambda heads: ReLUTargetAttention(WIDTH, heads), relu_attention),
    "cross": (lambda heads: CrossAttention(WIDTH, 2, heads, dropout=0.0), cross_attention),
}


def inputs(lengths, seed):
    """Targets [n, WIDTH], a table [N_ITEMS, WIDTH], both with gradients, and histories."""
    generator = torch.Generator().manual_seed(seed)
    targets, table = (
        torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
        for rows in (len(lengths), N_ITEMS)
    )
    return targets, table, random_histories(lengths, seed=seed)


def gradients(found, weigh, *inputs):
    return torch.autograd.grad((found * weigh).sum(), inputs, materialize_grads=True)


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=8)
@given(
    lengths=st.lists(st.integers(0, LONGEST), min_size=1, max_size=6),
    heads=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_ragged_equals_padded(name, lengths, heads, seed):
    make, reference = LAYERS[name]
    torch.manual_seed(seed)
    layer = make(heads).double()
    targets, table, histories = inputs(lengths, seed)
    found, expected = (f(targets, table, histories) for f in (layer, partial_of(reference, layer)))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    weigh, wanted = torch.randn_like(found), [targets, table, *layer.parameters()]
    for one, other in zip(
        gradients(found, weigh, *wanted), gradients(expected, weigh, *wanted), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def partial_of(reference, layer):
    return lambda *inputs: reference(layer, *inputs)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("clicks", [0, 1, 5])
def test_one_history_for_all_targets_equals_a_copy_for_each(name, clicks):
    torch.manual_seed(0)
    layer = LAYERS[name][0](2).double()
    targets, table, one = inputs([clicks], seed=1)
    targets = torch.cat([targets, 2 * targets, -targets])
    each = Histories.of(one.items.repeat(3), torch.full((3,), clicks))
    expected = layer(targets, table, each)
    torch.testing.assert_close(layer(targets, table, one), expected)
    if name != "cross":
        kept = layer.as_targets(targets), layer.as_clicks(table[one.items])
        torch.testing.assert_close(layer.of_one_history(*kept), expected)


def test_relu_attention_gives_no_weight_to_what_is_unlike():
    layer = ReLUTargetAttention(WIDTH, 1).double()
    with torch.no_grad():
        layer.key.weight.copy_(layer.query.weight)
    targets, _, _ = inputs([1], seed=0)
    table = torch.cat([targets, -targets])
    weights = layer.weights(targets, table, Histories.of(torch.tensor([0, 1]), torch.tensor([2])))
    assert weights[0] > 0
    assert weights[1] == 0


@pytest.mark.parametrize("batch_norm", [True, False])
def test_quadratic_layers_are_products_and_residuals(batch_norm):
    torch.manual_seed(0)
    network = QuadraticNetwork(4, 2, 3, batch_norm=batch_norm, dropout=0.5).double()
    x = torch.randn(7, 4, dtype=torch.float64)
    network(x)  # moves the running statistics
    expected = x
    for layer in network.eval():
        rows = [
            expected @ weight.T + bias
            for weight, bias in zip(
                layer.linear.weight.chunk(3), layer.linear.bias.chunk(3), strict=True
            )
        ]
        product = expected * sum(rows)
        if batch_norm:
            spread = (layer.norm.running_var + layer.norm.eps).sqrt()
            product = (product - layer.norm.running_mean) / spread
        slope = layer.activation.weight
        expected = expected + torch.where(product > 0, product, slope * product)
    torch.testing.assert_close(network(x), expected)


@settings(max_examples=25)
@given(
    label=st.lists(st.integers(0, 1), min_size=1, max_size=12),
    pairs=st.sampled_from([1, 5, 1000]),
    seed=st.integers(0, 1000),
)
def test_pairwise_loss_by_blocks_is_that_of_all_pairs(label, pairs, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(len(label), generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    label = torch.tensor(label, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rivals, "PAIRS", pairs)
        found = pairwise_loss(logits, label)
    gaps = logits[label == 1][:, None] - logits[label == 0]
    expected = -F.logsigmoid(gaps).mean() if gaps.numel() else 0 * logits.sum()
    torch.testing.assert_close(found, expected)
    (one,), (other,) = (torch.autograd.grad(2 * loss, logits) for loss in (found, expected))
    torch.testing.assert_close(one, other)


def test_pairwise_loss_of_a_large_batch_takes_little_memory():
    """All pairs of these would be 64 MiB for each copy."""
    logits = torch.linspace(-1, 1, 2**15, requires_grad=True)
    label = (torch.arange(len(logits)) % 64 == 0).float()
    pairwise_loss(logits, label).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.sum().abs() < 1e-4, "what clicks gain negatives lose"


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReLUTargetAttention(WIDTH, 5),
        lambda: CrossAttention(WIDTH, 1, 4, 0.0),
        lambda: LAYERS["transformer"][0](5),
    ],
)
def test_heads_that_cannot_share_the_columns_are_refused(make):
    with pytest.raises(ConfigError, match="does not divide the"):
        make()
