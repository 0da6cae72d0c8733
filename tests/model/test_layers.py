"""Each layer against a loop, NumPy, or a padded and masked computation."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmctr.model.layers import (
    DNN,
    BilinearInteraction,
    CrossNetwork,
    FieldEmbedding,
    ReLUDropout,
    SENet,
)
from tests.model.ragged import close


@pytest.mark.parametrize(("fields", "narrow"), [(2, 1), (3, 1), (7, 2)])
def test_senet_squeezes_and_excites(fields, narrow):
    layer = SENet(fields)
    x = torch.randn(4, fields, 5, generator=torch.Generator().manual_seed(0))
    first, second = (weight.detach().numpy().astype(np.float64) for weight in layer.parameters())
    assert first.shape == (narrow, fields)
    squeezed = x.numpy().mean(axis=2)
    weights = 1 / (1 + np.exp(-np.maximum(squeezed @ first.T, 0) @ second.T))
    np.testing.assert_allclose(layer.weights(x).detach().numpy(), weights, rtol=1e-5)
    expected = x.numpy() * weights[:, :, None]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["all", "each", "interaction"])
@pytest.mark.parametrize("fields", [2, 4])
def test_bilinear_interaction_is_a_double_loop(kind, fields):
    layer = BilinearInteraction(fields, 3, kind)
    x = torch.randn(5, fields, 3, generator=torch.Generator().manual_seed(0))
    weight = layer.weight.detach()
    expected = []
    for gap in range(1, fields):
        for left in range(fields - gap):
            right = left + gap
            chosen = {"all": 0, "each": left, "interaction": len(expected)}[kind]
            expected.append((x[:, left] @ weight[chosen]) * x[:, right])
    assert layer.pairs == len(expected) == len(list(combinations(range(fields), 2)))
    assert len(weight) == {"all": 1, "each": fields - 1, "interaction": len(expected)}[kind]
    close(layer(x).detach(), torch.cat([x, torch.stack(expected, dim=1)], dim=1))


@pytest.mark.parametrize("kind", ["all", "each"])
def test_bilinear_interaction_has_the_gradient_of_its_products(kind):
    layer = BilinearInteraction(4, 3, kind).double()
    x = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda fields, _: layer(fields), (x, layer.weight))


@pytest.mark.parametrize("layers", [1, 3])
def test_cross_network_is_dcn_v2(layers):
    layer = CrossNetwork(4, layers)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    expected = x
    for step in layer.layers:
        expected = x * (expected @ step.weight.T + step.bias) + expected
    close(layer(x), expected)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_dnn_is_linear_norm_relu(batch_norm):
    torch.manual_seed(0)
    layer = DNN(4, (5, 3), batch_norm=batch_norm, dropout=0.5)
    x = torch.randn(6, 4)
    layer(x)  # moves the running statistics away from 0 and 1
    layer.eval()
    expected = x
    for linear in (m for m in layer if isinstance(m, torch.nn.Linear)):
        expected = linear(expected)
        if batch_norm:
            norm = layer[list(layer).index(linear) + 1]
            scale = (norm.running_var + norm.eps).sqrt()
            expected = (expected - norm.running_mean) / scale * norm.weight + norm.bias
        expected = F.relu(expected)
    assert expected.shape == (6, 3)
    close(layer(x), expected)


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 0.9])
def test_relu_dropout_drops_its_share_and_scales_the_rest(dropout):
    torch.manual_seed(0)
    layer = ReLUDropout(dropout)
    x = torch.randn(301, 333)
    found = layer(x.clone())
    kept = found != 0
    torch.testing.assert_close(found[kept], x[kept] / (1 - dropout))
    share = kept.sum() / (x > 0).sum()
    assert share == pytest.approx(1 - dropout, abs=0.01)  # the standard error is below 0.003
    columns = kept.sum(0) / (x > 0).sum(0)
    assert columns.std() < 0.06  # no column or position in a machine word is favoured
    assert not torch.equal(layer(x.clone()), found) or not dropout
    torch.testing.assert_close(layer.eval()(x.clone()), x.relu())


def test_relu_dropout_has_the_gradient_of_what_it_kept():
    torch.manual_seed(0)
    x = torch.randn(50, 7, requires_grad=True)
    found = ReLUDropout(0.3)(x * 1.0)
    weigh = torch.randn(found.shape)
    (gradient,) = torch.autograd.grad((found * weigh).sum(), x)
    close(gradient, weigh * (found != 0) / 0.7)


@pytest.mark.parametrize("seed", [0, 1])
def test_relu_dropout_repeats_with_the_seed(seed):
    first, second = (
        (torch.manual_seed(seed), ReLUDropout(0.5)(torch.ones(99)))[1] for _ in range(2)
    )
    assert torch.equal(first, second)


def test_fields_are_the_sum_of_an_embedding_each():
    torch.manual_seed(0)
    sizes = [3, 2, 5]
    layer = FieldEmbedding(sizes, 4)
    codes = torch.tensor([[0, 1, 4], [2, 0, 3], [0, 0, 0]], dtype=torch.int32)
    rows = layer.table.weight.split(sizes)
    close(layer(codes), torch.stack([sum(rows[f][c] for f, c in enumerate(row)) for row in codes]))
    for field in range(3):
        close(layer.one(codes, field), rows[field][codes[:, field].long()])
    assert not layer(torch.zeros(1, 3, dtype=torch.int32)).any(), "unknown says nothing at first"
    layer(codes).sum().backward()
    assert layer.table.weight.grad[[0, 3, 5]].any(dim=1).all(), "and learns where train has it"
