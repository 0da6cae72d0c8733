"""Batches cut from impressions by index, in terms of their distinct items."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mmctr.data.impressions import Impressions
from mmctr.model.attention import Histories
from mmctr.model.batch import Batch
from mmctr.model.din import DIN

BLOCK, WINDOW = 2048, 256  # rows read one after another; blocks that are shuffled together


class Batches:
    """Impressions ready to be cut into batches for a model, on its device.

    Only the latest `max_history` clicks of a row are read. Every distinct item of a batch is named
    once, however many rows have it as target or in their history. On the CPU nothing is copied
    but the rows of a batch, so that memory-mapped impressions may be larger than memory.
    """

    def __init__(self, rows: Impressions, model: DIN) -> None:
        self.device = model.device
        self.max_history = model.config.max_history
        self.target = self._tensor(rows.target)
        self.start, self.end = self._tensor(rows.history_start), self._tensor(rows.history_end)
        self.history_items = self._tensor(rows.history_items)
        self.label = None if rows.label is None else self._tensor(rows.label)
        self.levels = None if rows.levels is None else self._tensor(rows.levels)
        self.fields = None if rows.fields is None else self._tensor(rows.fields)

    def __len__(self) -> int:
        return len(self.target)

    def show(self, target: np.ndarray, levels: np.ndarray | None) -> None:
        """From now on the rows have other targets, int32 [n], and their levels, int8 [n, 2]."""
        self.target = self._tensor(target)
        self.levels = None if levels is None else self._tensor(levels)

    def of(self, index: Tensor, clicks: int | None = None, *, one_history: bool = False) -> Batch:
        """The batch of the given rows, int64 [n].

        clicks: how many the rows read together, where that is known. one_history: the rows share
        their history, which the batch then holds once.
        """
        target = self.target[index].long()
        index_of_history = index[:1] if one_history else index
        end = self.end[index_of_history]
        start = torch.maximum(self.start[index_of_history], end - self.max_history)
        length = end - start
        rows = torch.repeat_interleave(length, output_size=clicks)
        first_click = length.cumsum(0) - length
        within = torch.arange(len(rows), device=self.device) - first_click[rows]
        click_items = self.history_items[start[rows] + within].long()
        items, position = distinct(torch.cat([target, click_items]))
        offsets = torch.cat([first_click, first_click[-1:] + length[-1:]])
        return Batch(
            items=items,
            target=position[: len(target)],
            histories=Histories(position[len(target) :], offsets, rows),
            label=None if self.label is None else self.label[index],
            levels=None if self.levels is None else self.levels[index].long(),
            fields=None if self.fields is None else self.fields[index],
        )

    def count(self, size: int) -> int:
        """How many batches of at most `size` rows there are."""
        return -(-len(self) // size)

    def in_order(self, size: int, *, one_history: bool = False) -> Iterator[Batch]:
        """All rows, as they stand."""
        for start in range(0, len(self), size):
            index = torch.arange(start, min(start + size, len(self)), device=self.device)
            yield self.of(index, one_history=one_history)

    def shuffled(
        self, size: int, generator: torch.Generator, share: tuple[int, int] = (0, 1), first: int = 0
    ) -> Iterator[Batch]:
        """All rows once, in random order, in batches that are equally large but for one row.

        No batch is too small for batch normalisation. share: (number, of how many), the part of
        every batch that is wanted. first: batches before this one are left out.

        Blocks of neighbouring rows are drawn at random and the rows of many blocks mixed: data on
        a disk are read in pieces, once, and up to 524,288 rows are mixed completely.
        """
        number, parts = share
        batches = self.count(size)
        smaller, larger = divmod(len(self), batches)
        waiting, cut = torch.empty(0, dtype=torch.int64), 0
        for blocks in torch.randperm(-(-len(self) // BLOCK), generator=generator).split(WINDOW):
            rows = (blocks[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
            rows = rows[rows < len(self)]
            waiting = torch.cat([waiting, rows[torch.randperm(len(rows), generator=generator)]])
            indices, used = [], 0
            while cut < batches and used + smaller + (cut < larger) <= len(waiting):
                length = smaller + (cut < larger)
                if cut >= first:
                    index = waiting[used : used + length].tensor_split(parts)[number]
                    indices.append(index.to(self.device))
                used, cut = used + length, cut + 1
            # All at once: the host waits for a GPU once, not at every batch.
            clicks = [
                (self.end[index] - self.start[index]).clamp(max=self.max_history).sum()
                for index in indices
            ]
            counts = torch.stack(clicks).tolist() if clicks else []
            yield from map(self.of, indices, counts)
            waiting = waiting[used:]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct ones of item ids, int64 [n], in rising order, and each id's position in them.

    On a GPU the list is as long as ids and ends in padding (item 0), because asking how many
    there are would make the host wait for the device.
    """
    if ids.device.type == "cpu":
        return torch.unique(ids, return_inverse=True)
    return distinct_padded(ids)


def distinct_padded(ids: Tensor) -> tuple[Tensor, Tensor]:
    """`distinct` with a result of known size, on any device."""
    ordered, order = ids.sort()
    rank = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(0)
    position = torch.empty_like(ids).scatter_(0, order, rank)
    return torch.zeros_like(ids).scatter_(0, rank, ordered), position
