"""The items' tables spread over torchrun's processes: each holds every so-manieth row.

Own code, because with torch 2.15 nothing ready-made does it on a CPU: the gradient of a DTensor
embedding is the whole table in every process (sparse ones have no sharding strategy), and TorchRec
1.9 needs a library, fbgemm, which that version of torch cannot load.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmctr import parallel

Rows = TypeVar("Rows", bound=tuple)  # a named tuple of what tables say of some items
BLOCK = 1 << 16  # rows that are drawn, read and written at once; a multiple of 16, see `normal_`
DONE = -1  # in place of a number of items: the process asks for nothing more
KINDS = {  # as safetensors names them
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Shard:
    """The rows of one process: those of the items number, number + of, number + 2 of, and so on.

    Item i is row ceil(i / of) there. Row 0 is padding in every process, so that its rows are the
    tables of a smaller catalog. Neighbours have different owners: popular items often are.
    """

    number: int
    of: int
    n_items: int

    @classmethod
    def here(cls, n_items: int) -> Self | None:
        """That of this process; None, for the whole tables, if it is alone."""
        number, of = parallel.share()
        return cls(number, of, n_items) if of > 1 else None

    def __len__(self) -> int:
        """How many rows it has, padding counted."""
        return -(-(self.n_items + 1 - self.number) // self.of) + (self.number > 0)

    def own(self, array: np.ndarray) -> np.ndarray:
        """Its rows, a copy, of what has a row an item, [n_items + 1, ...]."""
        return np.concatenate([array[: self.number > 0], array[self.number :: self.of]])

    def blocks(self) -> Iterator[tuple[slice, slice, slice]]:
        """The whole table's rows, block by block; which of a block are its own; where it has them.

        The last block has up to 2 BLOCK - 1 rows, the others BLOCK.
        """
        rows = self.n_items + 1
        starts = range(0, max(rows - BLOCK, 0) + 1, BLOCK)
        for start in starts:
            stop = rows if start == starts[-1] else start + BLOCK
            first = start + (self.number - start) % self.of
            own = -(-first // self.of)
            count = len(range(first, stop, self.of))
            yield (
                slice(start, stop),
                slice(first - start, stop - start, self.of),
                slice(own, own + count),
            )

    @torch.no_grad()
    def normal_(self, table: Tensor, std: float = 1.0) -> Tensor:
        """Draw its rows, [len, width], as they are if all rows are drawn at once; padding is zero.

        The whole table is not made: PyTorch draws 16 numbers at a time, so that
        blocks of as many rows give the same ones.
        """
        for rows, within, own in self.blocks():
            block = table.new_empty(rows.stop - rows.start, table.shape[1]).normal_(std=std)
            table[own] = block[within]
        table[0] = 0
        return table

    def look_up(self, items: Tensor, own_rows: Callable[[Tensor], Rows]) -> Rows:
        """What the processes that hold items, int64 [m], say of them; all ask at the same time.

        own_rows: what this process says of its rows, int64 [k], a named tuple of tensors [k, ...]
        and None. Gradients go back to the process that holds the row, averaged over processes as
        those of other weights.
        """
        return self._round(items, own_rows)[0]

    @torch.no_grad()
    def answer(self, own_rows: Callable[[Tensor], Rows], device: torch.device) -> None:
        """Answer what others look up, until all have come here: they may have more batches."""
        others_ask = True
        while others_ask:
            others_ask = self._round(None, own_rows, device)[1]

    def _round(
        self,
        items: Tensor | None,
        own_rows: Callable[[Tensor], Rows],
        device: torch.device | None = None,
    ) -> tuple[Rows, bool]:
        """What others say of items, and whether any process asked; items: None if this is done."""
        done = items is None
        if done:
            items = torch.empty(0, dtype=torch.int64, device=device)
        owner = items % self.of
        order = owner.argsort(stable=True)
        counts = owner.bincount(minlength=self.of)
        told = torch.full_like(counts, DONE) if done else counts
        asked = _exchanged(told, [1] * self.of, [1] * self.of)
        others_ask = bool((asked != DONE).any())
        ours, theirs = counts.tolist(), asked.clamp(min=0).tolist()
        rows = (items[order] + self.of - 1) // self.of
        found = own_rows(_exchanged(rows, ours, theirs))
        answers = [
            None if part is None else _Answer.apply(part, order, theirs, ours) for part in found
        ]
        return type(found)(*answers), others_ask

    def whole(self, table: Tensor) -> Iterator[Tensor]:
        """The whole table of which this process has rows, block by block, at the first process.

        All processes call it, and the others get nothing.
        """
        every = [replace(self, number=number).blocks() for number in range(self.of)]
        for parts in zip(*every, strict=True):
            rows, within, own = parts[self.number]
            if self.number > 0:
                dist.send(table[own].contiguous(), 0)
                continue
            block = table.new_empty(rows.stop - rows.start, *table.shape[1:])
            block[within] = table[own]
            for number in range(1, self.of):
                part = block[parts[number][1]].contiguous()
                dist.recv(part, number)
                block[parts[number][1]] = part
            yield block

    def save(self, path: Path | None, state: dict[str, Tensor], tables: set[str]) -> None:
        """Write a state as safetensors: tables, of which this process has rows, are written whole.

        All processes call it, and the first one's path is written, a block of rows at a time.
        """
        names = sorted(state, key=lambda name: -state[name].itemsize)  # so that each is aligned
        header, end = {}, 0
        for name in names:
            shape = list(state[name].shape)
            if name in tables:
                shape[0] = self.n_items + 1
            start, end = end, end + math.prod(shape) * state[name].itemsize
            about = {"dtype": KINDS[state[name].dtype], "shape": shape}
            header[name] = about | {"data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with nullcontext() if self.number > 0 else path.open("wb") as file:
            if self.number == 0:
                file.write(struct.pack("<Q", len(text)) + text)
            for name in names:
                blocks = self.whole(state[name]) if name in tables else [state[name]]
                for block in blocks:
                    if self.number == 0:
                        file.write(block.contiguous().cpu().numpy().data)

    def read(self, path: Path, tables: set[str]) -> dict[str, Tensor]:
        """The tensors of a file, those of tables without the rows of other processes.

        Raises ValueError for a table with other rows than items and padding.
        """
        found = {}
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118, the file is no mapping
                if name not in tables:
                    found[name] = file.get_tensor(name)
                    continue
                part = file.get_slice(name)
                if part.get_shape()[0] != self.n_items + 1:
                    raise ValueError(
                        f"{name} has {part.get_shape()[0]} rows, expected {self.n_items + 1}"
                    )
                table = part[:1].new_zeros(len(self), *part.get_shape()[1:])
                table[:1] = part[:1]
                for rows, within, own in self.blocks():
                    table[own] = part[rows][within]
                found[name] = table
        return found


def own_rows(array: np.ndarray | None, shard: Shard | None) -> Tensor | None:
    """What has a row an item, as a tensor; a copy of the shard's rows alone, if there is one."""
    if array is None:
        return None
    return torch.from_numpy(array if shard is None else shard.own(array))


class _Answer(torch.autograd.Function):
    """Rows that were asked for, brought to those who asked, in the order of their items."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, order: Tensor, sent: list[int], received: list[int]
    ) -> Tensor:
        ctx.save_for_backward(order)
        ctx.sent, ctx.received = sent, received
        found = _exchanged(rows, sent, received)
        return torch.empty_like(found).index_copy_(0, order, found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (order,) = ctx.saved_tensors
        found = _exchanged(gradient[order], ctx.received, ctx.sent)
        return found / len(ctx.sent), None, None, None


def _exchanged(rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """What processes send each other: so many of these rows to each, and so many from each."""
    found = rows.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(found, rows.contiguous(), received, sent)
    return found
