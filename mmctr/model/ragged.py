"""Lists of items of any length, and what is computed over them. Padding does not exist.

Of each place in a list three things are asked: the dot product of its row's vector with its item's,
its share of the row (softmax), and the sum of items by such weights. Products and sums are each
other's gradients, so that on a CPU no vector is ever copied out for every place.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


@dataclass(frozen=True)
class Ragged:
    """Items of n rows one after another.

    items: int64 [places], positions in a table of vectors. offsets: int64 [n + 1], where each row
    starts, and the number of places last. rows: int64 [places], each place's row.
    """

    items: Tensor
    offsets: Tensor
    rows: Tensor

    @classmethod
    def of(cls, items: Tensor, lengths: Tensor) -> Self:
        """From items and the number of each row's, int64 [n]."""
        offsets = F.pad(lengths.cumsum(0), (1, 0))
        rows = torch.repeat_interleave(
            torch.arange(len(lengths), device=items.device), lengths, output_size=len(items)
        )
        return cls(items, offsets, rows)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def dots(self, vectors: Tensor, table: Tensor, heads: int = 1) -> Tensor:
        """Dot products of each place's item with its row's vector: [places, heads].

        vectors: float [n, width]; table: float [m, width]; heads are equal slices of their columns.
        At least float32.
        """
        vectors, table = _as_float32(vectors, table)
        if vectors.device.type != "cpu":
            return _plain_products(self, vectors, table, heads)
        return _Dots.apply(vectors, table, self, heads)

    def weighted_sum(self, table: Tensor, weights: Tensor) -> Tensor:
        """Sum each row's items by weight: [n, width], zero for an empty row.

        table: float [m, width]; weights: float [places, heads], each for a slice of the columns.
        At least float32.
        """
        table, weights = _as_float32(table, weights)
        if weights.device.type != "cpu":
            return _sums(self.items, self.offsets, table, weights)
        return _WeightedSum.apply(table, weights, self)

    def softmax(self, scores: Tensor) -> Tensor:
        """Softmax over each row's places, separately for each column: [places, columns]."""
        return scores if len(scores) == 0 else _Softmax.apply(scores, self)

    @cached_property
    def by_item(self) -> tuple[Tensor, Tensor, Tensor]:
        """The places in order of their items, their rows, and where each item's start.

        The last is int64 and goes as far as the items that are named.
        """
        places, offsets = by_row(self.items, 0)
        return places, self.rows[places], offsets


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, table: Tensor, lists: Ragged, heads: int) -> Tensor:
        ctx.lists = lists
        ctx.save_for_backward(vectors, table)
        return _products(lists, vectors.detach(), table.detach(), heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        vectors, table = (tensor.detach() for tensor in ctx.saved_tensors)
        of_vectors = _sums(ctx.lists.items, ctx.lists.offsets, table, gradient)
        return of_vectors, _sums_by_item(ctx.lists, len(table), vectors, gradient), None, None


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, weights: Tensor, lists: Ragged) -> Tensor:
        ctx.lists = lists
        ctx.save_for_backward(table, weights)
        return _sums(lists.items, lists.offsets, table.detach(), weights.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        table, weights = (tensor.detach() for tensor in ctx.saved_tensors)
        of_table = _sums_by_item(ctx.lists, len(table), gradient, weights)
        if not ctx.needs_input_grad[1]:
            return of_table, None, None
        return of_table, _products(ctx.lists, gradient, table, weights.shape[1]), None


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, lists: Ragged) -> Tensor:
        each = {"offsets": lists.offsets, "axis": 0}
        highest = torch.segment_reduce(scores, "max", **each, initial=-torch.inf)
        exponential = (scores - F.embedding(lists.rows, highest)).exp_()
        total = torch.segment_reduce(exponential, "sum", **each, initial=0.0)
        shares = exponential.div_(F.embedding(lists.rows, total))
        ctx.lists = lists
        ctx.save_for_backward(shares)
        return shares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (shares,) = ctx.saved_tensors
        weighed = gradient * shares
        offsets = ctx.lists.offsets
        total = torch.segment_reduce(weighed, "sum", offsets=offsets, axis=0, initial=0.0)
        return weighed - shares * F.embedding(ctx.lists.rows, total), None


def _products(lists: Ragged, vectors: Tensor, table: Tensor, heads: int) -> Tensor:
    if len(lists.items) > len(vectors) * len(table):  # PyTorch finds no room for them in a matrix
        return _plain_products(lists, vectors, table, heads)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        # An item that a row names twice is no matter: each place has a product of its own.
        places = torch.sparse_csr_tensor(
            lists.offsets,
            lists.items,
            vectors.new_zeros(len(lists.items)),
            (len(vectors), len(table)),
            check_invariants=False,
        )
    slices = zip(vectors.tensor_split(heads, 1), table.tensor_split(heads, 1), strict=True)
    found = [torch.sparse.sampled_addmm(places, own, items.T, beta=0) for own, items in slices]
    return torch.stack([each.values() for each in found], dim=1)


def _plain_products(lists: Ragged, vectors: Tensor, table: Tensor, heads: int) -> Tensor:
    products = gather(vectors, lists.rows) * gather(table, lists.items)
    return products.unflatten(1, (heads, -1)).sum(2)


def _sums(items: Tensor, offsets: Tensor, table: Tensor, weights: Tensor) -> Tensor:
    slices = zip(table.tensor_split(weights.shape[1], dim=1), weights.unbind(1), strict=True)
    found = [
        F.embedding_bag(items, part, offsets[:-1], mode="sum", per_sample_weights=own)
        for part, own in slices
    ]
    return torch.cat(found, dim=1)


def _sums_by_item(lists: Ragged, count: int, vectors: Tensor, weights: Tensor) -> Tensor:
    places, rows, offsets = lists.by_item
    sums = _sums(rows, offsets, vectors, F.embedding(places, weights))
    return F.pad(sums, (0, 0, 0, count - len(sums)))


def _as_float32(*tensors: Tensor) -> list[Tensor]:
    """bfloat16 cannot sum the gradients of an item that is named thousands of times."""
    kind = torch.float32
    for tensor in tensors:
        kind = torch.promote_types(kind, tensor.dtype)
    return [tensor.to(kind) for tensor in tensors]


def gather(table: Tensor, rows: Tensor) -> Tensor:
    """table[rows], for rows int64 of any shape; its gradient is summed in a fixed order.

    Plain indexing adds gradients in whatever order threads come, so that runs would differ. At
    least float32: bfloat16 cannot sum the gradients of an item that is named thousands of times.
    """
    table = table.to(torch.promote_types(table.dtype, torch.float32))
    return F.embedding(rows, table) if rows.device.type != "cpu" else _Gather.apply(table, rows)


class _Gather(torch.autograd.Function):
    """On a CPU a third of the time of F.embedding's gradient: each row is summed at once."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.count = len(table)
        return F.embedding(rows, table.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        order, offsets = by_row(rows.flatten(), ctx.count)
        gradient = gradient.flatten(0, rows.ndim - 1)
        return F.embedding_bag(order, gradient, offsets[:-1], mode="sum"), None


def by_row(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The places of rows, int64 [n], in order of the rows, and where each row's start.

    The second is int64 [count + 1] and ends in n.
    """
    order = rows.int().sort(stable=True).indices  # half the time of int64
    return order, F.pad(torch.bincount(rows, minlength=count).cumsum(0), (1, 0))
