"""Batches cut from impressions by index, in terms of their distinct items."""

from collections.abc import Iterator
from functools import partial
from itertools import islice, pairwise

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

    process: (number, of how many), whose part of every shuffled batch is wanted. shards: into so
    many runs the rows are cut, a multiple of the processes, each of which takes its part from its
    own and reads no others; if 1, from all rows.
    """

    def __init__(
        self, rows: Impressions, model: DIN, process: tuple[int, int] = (0, 1), shards: int = 1
    ) -> None:
        self.device = model.device
        self.max_history = model.config.max_history
        self.rows, self.process = len(rows), process
        number, processes = process
        every = [len(rows) * shard // shards for shard in range(shards + 1)]
        of_each, apart = shards // processes, shards > 1
        self.borders = every[of_each * number : of_each * (number + 1) + 1] if apart else every
        self.own, self.first_shard = slice(self.borders[0], self.borders[-1]), of_each * number
        self.shards = shards
        start, end = rows.history_start[self.own], rows.history_end[self.own]
        items, self.clicks_before = rows.history_items, 0
        if apart and processes > 1:
            self.clicks_before = int(start.min(initial=len(items)))
            items = items[self.clicks_before : int(end.max(initial=0))]
        self.start, self.end = self._tensor(start), self._tensor(end)
        self.history_items = self._tensor(items)
        self.label = None if rows.label is None else self._tensor(rows.label[self.own])
        self.fields = None if rows.fields is None else self._tensor(rows.fields[self.own])
        self.show(rows.target, rows.levels)

    def __len__(self) -> int:
        return self.rows

    def show(self, target: np.ndarray, levels: np.ndarray | None) -> None:
        """From now on the rows have these targets, int32 [n], and their levels, int8 [n, 2]."""
        self.target = self._tensor(target[self.own])
        self.levels = None if levels is None else self._tensor(levels[self.own])

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
        start -= self.clicks_before
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

    def shuffled(self, size: int, generator: torch.Generator, first: int = 0) -> Iterator[Batch]:
        """All rows once, in random order, in batches that are equally large but for one row.

        No batch is too small for batch normalisation. first: batches before this one are left out.
        Of several shards every batch has equally many rows, but for one of each; however many
        processes there are, the batches are the same.

        Blocks of neighbouring rows are drawn at random and the rows of many blocks mixed: data on
        a disk are read in pieces, once, and up to 524,288 rows of a shard are mixed completely.
        """
        number, processes = self.process
        if self.shards == 1:
            whole = self._order(self.rows, size, generator)
            indices = (index.tensor_split(processes)[number] for index in whole)
        else:
            seeds = torch.randint(2**62, (self.shards,), generator=generator).tolist()
            indices = map(torch.cat, zip(*self._orders(size, seeds), strict=True))
        indices = islice(indices, first, None)
        while group := [index.to(self.device) for index in islice(indices, WINDOW)]:
            # All at once: the host waits for a GPU once, not at every batch.
            clicks = [
                (self.end[index] - self.start[index]).clamp(max=self.max_history).sum()
                for index in group
            ]
            yield from map(self.of, group, torch.stack(clicks).tolist())

    def _orders(self, size: int, seeds: list[int]) -> Iterator[Iterator[Tensor]]:
        """`_order` of each of this process's shards, as positions in what it holds."""
        for shard, (start, stop) in enumerate(pairwise(self.borders), start=self.first_shard):
            generator = torch.Generator().manual_seed(seeds[shard])
            order = self._order(stop - start, size, generator)
            yield map(partial(torch.add, start - self.own.start), order)

    def _order(self, rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """For each batch of all rows the positions, int64 [n], of those of so many in a run."""
        batches = self.count(size)
        smaller, larger = divmod(rows, batches)
        waiting, cut = torch.empty(0, dtype=torch.int64), 0
        for blocks in torch.randperm(-(-rows // BLOCK), generator=generator).split(WINDOW):
            found = (blocks[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
            found = found[found < rows]
            waiting = torch.cat([waiting, found[torch.randperm(len(found), generator=generator)]])
            used = 0
            while cut < batches and used + smaller + (cut < larger) <= len(waiting):
                length = smaller + (cut < larger)
                yield waiting[used : used + length]
                used, cut = used + length, cut + 1
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
