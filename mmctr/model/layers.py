"""The layers of the model beside its attention: one class a paper's idea."""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmctr.model.ragged import Ragged

ITEM_FIELDS, USER_FIELDS, CONTEXT = "item fields", "user fields", "context"
SIMILARITY, SEMANTIC_IDS = "similarity to the history", "semantic ids"


class FieldEmbedding(nn.Module):
    """One vector of several categories: the sum of an embedding each.

    That is what a linear layer makes of the embeddings joined, at the cost of one field: products
    of pairs would grow with the square of their number. Code 0 is unknown: zero, until training
    meets it.

    Argument: sizes, the number of codes of each category.
    """

    def __init__(self, sizes: Sequence[int], dim: int) -> None:
        super().__init__()
        offsets = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        self.register_buffer("offsets", offsets, persistent=False)
        self.table = nn.EmbeddingBag(sum(sizes), dim, mode="sum")
        nn.init.normal_(self.table.weight, std=0.01)
        with torch.no_grad():
            self.table.weight[offsets] = 0

    def forward(self, codes: Tensor) -> Tensor:
        """The vectors, [n, dim], of codes, int [n, categories]."""
        rows = codes + self.offsets
        return weighted_rows(self.table.weight, rows, torch.ones_like(rows, dtype=torch.float32))

    def one(self, codes: Tensor, category: int) -> Tensor:
        """What one category adds, [n, dim], of codes, int [n, categories]."""
        return F.embedding(codes[:, category] + self.offsets[category], self.table.weight)


def weighted_rows(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Sums of some rows of a table by weight, [n, width]; rows: int [n, k]; weights: [n, k]."""
    lengths = torch.full((len(rows),), rows.shape[1], device=rows.device)
    return Ragged.of(rows.flatten().long(), lengths).weighted_sum(table, weights.flatten()[:, None])


class SENet(nn.Module):
    """Weigh the fields of a row by their importance (FiBiNET: Huang et al., 2019, section 3.3).

    Squeeze is the mean over a field's columns, excitation two linear layers; the outer activation
    is the sigmoid of the original squeeze-and-excitation network (Hu et al., 2018, eq. 3).
    """

    def __init__(self, fields: int, reduction: int = 3) -> None:
        super().__init__()
        narrow = max(1, fields // reduction)
        self.excitation = nn.Sequential(
            nn.Linear(fields, narrow, bias=False),
            nn.ReLU(),
            nn.Linear(narrow, fields, bias=False),
            nn.Sigmoid(),
        )

    def weights(self, fields: Tensor) -> Tensor:
        """Field weights in 0..1, [n, fields], of fields [n, fields, dim]."""
        return self.excitation(fields.mean(dim=2))

    def forward(self, fields: Tensor) -> Tensor:
        """Reweigh fields [n, fields, dim]."""
        return fields * self.weights(fields).unsqueeze(2)


class BilinearInteraction(nn.Module):
    """Products of all pairs of fields, (v_i W) * v_j (FiBiNET: Huang et al., 2019, eq. 5 to 7).

    kind: "all" shares one W, "each" has one for each field i, "interaction" one for each pair.
    """

    def __init__(self, fields: int, dim: int, kind: Literal["all", "each", "interaction"]) -> None:
        super().__init__()
        # Neighbours first: pairs at the same distance are then products of two plain slices.
        pairs = sorted(combinations(range(fields), 2), key=lambda pair: pair[1] - pair[0])
        pairs = torch.tensor(pairs).T
        self.register_buffer("left", pairs[0], persistent=False)
        self.register_buffer("right", pairs[1], persistent=False)
        self.kind = kind
        count = {"all": 1, "each": fields - 1, "interaction": pairs.shape[1]}[kind]
        # Near the identity, interactions start as plain products of fields: as similarity.
        self.weight = nn.Parameter(torch.eye(dim) + torch.randn(count, dim, dim) * 0.1 * dim**-0.5)

    @property
    def pairs(self) -> int:
        """The number of pairs of fields."""
        return len(self.left)

    def forward(self, fields: Tensor) -> Tensor:
        """Fields [n, fields, dim], and after them their interactions: [n, fields + pairs, dim]."""
        if self.kind == "interaction":
            left = torch.einsum("npd,pde->npe", fields.index_select(1, self.left), self.weight)
            right = fields.index_select(1, self.right).to(left.dtype)
            return torch.cat([fields.to(left.dtype), left * right], dim=1)
        if self.kind == "all":
            left = fields @ self.weight[0]  # one product of whole rows, without a copy
        else:
            left = torch.einsum("nfd,fde->nfe", fields[:, :-1], self.weight)
        fields = fields.to(left.dtype)  # products of halves stay halves
        if torch.compiler.is_exporting():  # ONNX writes nothing in place
            count = fields.shape[1]
            products = [left[:, : count - gap] * fields[:, gap:] for gap in range(1, count)]
            return torch.cat([fields, *products], dim=1)
        return _Neighbours.apply(left, fields)


class _Neighbours(torch.autograd.Function):
    """Fields, then left_i * field_j for all i < j, neighbours first, written where they are read.

    As slices and products it takes twice as long: each slice has a gradient as large as the whole.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, fields: Tensor) -> Tensor:
        ctx.save_for_backward(left, fields)
        n, count, dim = fields.shape
        joined = fields.new_empty(n, count * (count + 1) // 2, dim)
        joined[:, :count] = fields
        for gap, products in _by_gap(joined, count):
            torch.mul(left[:, : count - gap], fields[:, gap:], out=products)
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        left, fields = ctx.saved_tensors
        count = fields.shape[1]
        of_left, of_fields = torch.zeros_like(left), gradient[:, :count].clone()
        for gap, products in _by_gap(gradient, count):
            of_left[:, : count - gap].addcmul_(products, fields[:, gap:])
            of_fields[:, gap:].addcmul_(products, left[:, : count - gap])
        return of_left, of_fields


def _by_gap(joined: Tensor, count: int) -> Iterator[tuple[int, Tensor]]:
    """The products of _Neighbours by how far apart their fields are."""
    first = count
    for gap in range(1, count):
        yield gap, joined[:, first : first + count - gap]
        first += count - gap


class CrossNetwork(nn.Module):
    """Crosses x_{l+1} = x_0 * (W_l x_l + b_l) + x_l (DCN v2: Wang et al., 2021, eq. 1)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Cross [n, width] with itself once a layer."""
        crossed = x
        for layer in self.layers:
            crossed = torch.addcmul(crossed, x, layer(crossed))
        return crossed


class DNN(nn.Sequential):
    """Fully connected layers with ReLU, optional batch normalisation, and dropout."""

    def __init__(
        self, width: int, hidden: tuple[int, ...], *, batch_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        for into, out in pairwise((width, *hidden)):
            self.append(nn.Linear(into, out))
            if batch_norm:
                self.append(nn.BatchNorm1d(out))
            self.append(ReLUDropout(dropout))


class ReLUDropout(nn.Module):
    """ReLU, then dropout, in place.

    On the CPU a third of the time of the two one after another: random bits come 64 at a time, and
    the result itself tells the gradient what was kept, so that no mask is stored.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """float of any shape; x is overwritten."""
        if not self.training or not self.dropout:
            return F.relu_(x)
        if x.device.type != "cpu":
            return F.dropout(F.relu_(x), self.dropout)
        return _ReLUDropout.apply(x, self.dropout)


class _ReLUDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: float) -> Tensor:
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        kept = bits >= round(dropout * 2**16) - 2**15
        x.relu_().mul_(kept).mul_(1 / (1 - dropout))
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.scale = 1 / (1 - dropout)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, result, 0).mul_(ctx.scale), None
