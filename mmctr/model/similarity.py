"""How like a target is to its history under the frozen item embedding, as a field of the model."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmctr.model.attention import Histories
from mmctr.model.ragged import gather

BINS = 20  # of cosines from -1 to 1: tenths, as in SimTier


class HistorySimilarity(nn.Module):
    """Cosines of target and clicks, counted in bins (SimTier: arXiv 2407.19467, section 4.2).

    log(1 + count) of each bin, and the largest and the mean cosine within each head, a slice of
    the item embedding's columns, become one field by a linear layer. Content meets behaviour here
    without ids. The cosines themselves do not learn; what has no content is counted nowhere.
    """

    def __init__(self, width: int, heads: int, dim: int) -> None:
        super().__init__()
        self.columns = [len(part) for part in torch.arange(width).tensor_split(heads) if len(part)]
        self.output = nn.Linear(BINS + 2 * len(self.columns), dim, bias=False)

    @torch.no_grad()
    def as_items(self, content: Tensor) -> Tensor:
        """All that matters of items: unit vectors by head, and each head's share of the length.

        [m, width + heads] of item embeddings [m, width].
        """
        parts = content.float().split(self.columns, dim=1)
        lengths = torch.stack([part.norm(dim=1) for part in parts], dim=1)
        units = [F.normalize(part, dim=1) for part in parts]
        return torch.cat([*units, F.normalize(lengths, dim=1)], dim=1)

    def forward(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """The field, [n, dim]; targets [n, ...] and table [m, ...] are of `as_items`.

        A single history may serve all targets.
        """
        if len(histories) < len(targets):
            return self.of_one_history(targets, F.embedding(histories.items, table))
        with torch.no_grad():
            *own, shares = targets.split([*self.columns, len(self.columns)], dim=1)
            *theirs, other = table.split([*self.columns, len(self.columns)], dim=1)
            heads = torch.cat([*map(histories.dots, own, theirs)], dim=1)
            shares = gather(shares, histories.rows) * gather(other, histories.items)
            found = summary(heads, shares, histories)
        return self.output(found.to(self.output.weight.dtype))

    def of_one_history(self, targets: Tensor, clicks: Tensor) -> Tensor:
        """The field, [n, dim], of n targets that all share these clicks; both of `as_items`."""
        with torch.no_grad():
            own, theirs = (
                x.float().split([*self.columns, len(self.columns)], dim=1)
                for x in (targets, clicks)
            )
            heads = [a @ b.T for a, b in zip(own[:-1], theirs[:-1], strict=True)]
            shares = own[-1][:, None] * theirs[-1]
            lengths = torch.full((len(targets),), len(clicks), device=targets.device)
            every = torch.arange(len(clicks), device=targets.device).repeat(len(targets))
            histories = Histories.of(every, lengths)
            found = summary(
                torch.stack(heads, dim=2).flatten(0, 1), shares.flatten(0, 1), histories
            )
        return self.output(found.to(self.output.weight.dtype))


def summary(heads: Tensor, shares: Tensor, histories: Histories) -> Tensor:
    """log(1 + clicks) by bin of the whole cosine, then the largest and the mean of each head.

    float32 [n, BINS + 2 heads]. heads: cosine of each click with its row's target within each
    head, [clicks, heads]; shares: the products of the heads' shares of the length, by which they
    add up to the whole cosine; all zero where either has no content.
    """
    cosine, seen = (heads * shares).sum(dim=1), shares.any(dim=1)
    bins = ((cosine + 1) * (BINS / 2)).long().clamp(0, BINS - 1) + histories.rows * BINS
    counts = torch.bincount(bins[seen], minlength=len(histories) * BINS).view(-1, BINS)
    if not len(heads):
        return F.pad(counts.float(), (0, 2 * heads.shape[1]))
    each = {"offsets": histories.offsets, "axis": 0}
    mean = torch.segment_reduce(heads, "mean", **each, initial=0.0)
    largest = torch.segment_reduce(heads, "max", **each, initial=-1.0)
    # An empty history is like nothing: its largest cosine is that of what says nothing.
    largest = largest.masked_fill((histories.offsets.diff() == 0)[:, None], 0)
    return torch.cat([counts.float().log1p(), largest, mean.nan_to_num()], dim=1)
