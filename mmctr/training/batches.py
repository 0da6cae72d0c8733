"""Batches cut from impressions by index, in terms of their distinct items."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mmctr.data.dataset import Impressions
from mmctr.model.din import DIN, Batch
from mmctr.model.layers import Histories


class Batches:
    """Impressions on a model's device, ready to be cut into batches for it.

    Only the latest `max_history` clicks of a row are read. Every distinct item of a batch is named
    once, however many rows have it as target or in their history.
    """

    def __init__(self, rows: Impressions, model: DIN) -> None:
        device = model.device
        self.target = torch.from_numpy(rows.target).long().to(device)
        end = torch.from_numpy(rows.history_end).to(device)
        start = torch.from_numpy(rows.history_start).to(device)
        self.start = torch.maximum(start, end - model.config.max_history)
        self.length = end - self.start
        self.history_items = torch.from_numpy(rows.history_items).to(device)
        self.label = None if rows.label is None else torch.from_numpy(rows.label).to(device)
        self.n_items = model.n_items

    def __len__(self) -> int:
        return len(self.target)

    def of(self, index: Tensor) -> Batch:
        """The batch of the given rows, int64 [n]."""
        target, length = self.target[index], self.length[index]
        click_row = torch.repeat_interleave(length)
        first_click = length.cumsum(0) - length
        within = torch.arange(len(click_row), device=length.device) - first_click[click_row]
        clicks = self.history_items[self.start[index][click_row] + within].long()
        used = torch.zeros(self.n_items + 1, dtype=torch.bool, device=length.device)
        used[target] = True
        used[clicks] = True
        items = used.nonzero().squeeze(1)
        position = used.cumsum(0) - 1
        return Batch(
            items=items,
            target=position[target],
            histories=Histories.of(position[clicks], length),
            label=None if self.label is None else self.label[index],
        )

    def count(self, size: int) -> int:
        """How many batches of at most `size` rows there are."""
        return -(-len(self) // size)

    def in_order(self, size: int) -> Iterator[Batch]:
        """All rows, as they stand."""
        for index in torch.arange(len(self), device=self.target.device).split(size):
            yield self.of(index)

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """All rows once, in random order.

        The batches are equally large but for one row, so that none is too small for batch
        normalisation.
        """
        order = torch.randperm(len(self), generator=generator).to(self.target.device)
        for index in order.tensor_split(self.count(size)):
            yield self.of(index)
