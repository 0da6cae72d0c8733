"""Target attention over ragged histories."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmctr.model.layers import DNN, ReLUDropout
from mmctr.model.ragged import Ragged, gather


class Histories(Ragged):
    """The clicks of rows one after another, as positions in a table of item vectors."""

    @classmethod
    def one(cls, clicks: Tensor) -> "Histories":
        """A single history of all clicks of a table of vectors, [clicks, width]."""
        every = torch.arange(len(clicks), device=clicks.device)
        return cls.of(every, torch.tensor([len(clicks)], device=clicks.device))

    def for_rows(self, count: int) -> "Histories":
        """One history a row: these, or the only one again for every row."""
        if len(self) == count:
            return self
        lengths = torch.full((count,), len(self.items), device=self.items.device)
        return Histories.of(self.items.repeat(count), lengths)

    def ages(self) -> Tensor:
        """How many later clicks the row has, 0 for its latest: int64 [clicks]."""
        position = torch.arange(len(self.items), device=self.items.device)
        return self.offsets[1:][self.rows] - 1 - position


class MultiHeadTargetAttention(nn.Module):
    """Scaled dot-product attention of the target over its history, with several heads.

    Vaswani et al. (2017), eq. 1, with one query a row: the target. An empty history gives zeros.
    max_age: clicks that differ in age for a learned bias of each head, 0 for no such bias. It
    starts falling with the logarithm of the age, at another rate for each head, so that short and
    long memories lie side by side (after ALiBi: Press et al., 2022, section 3).
    """

    def __init__(
        self, width: int, heads: int, head_dim: int, value_dim: int, max_age: int = 0
    ) -> None:
        super().__init__()
        rate = torch.arange(heads) / max(1, heads - 1)
        decay = -torch.arange(1, max_age + 1).log().unsqueeze(1) * rate
        self.recency = nn.Parameter(decay) if max_age else None
        self.heads, self.head_dim, self.value_dim = heads, head_dim, value_dim
        self.query = nn.Linear(width, heads * head_dim)
        self.key = nn.Linear(width, heads * head_dim, bias=False)
        self.value = nn.Linear(width, heads * value_dim, bias=False)
        with torch.no_grad():
            # Queries that equal keys make attention start as similarity, not as noise.
            self.key.weight.copy_(self.query.weight)
            # Values that start as the sum of an item's fields live in the fields' own space, where
            # later products of target and interest mean similarity.
            if width % value_dim == 0:
                self.value.weight.copy_(torch.eye(value_dim).repeat(heads, width // value_dim))

    @property
    def interest_width(self) -> int:
        """Columns of the interest vector."""
        return self.heads * self.value_dim

    def weights(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """Attention weights [clicks, heads]; they sum to 1 over each row's clicks."""
        histories = histories.for_rows(len(targets))
        scores = histories.dots(self.as_targets(targets), self.key(table), self.heads)
        if self.recency is not None:
            scores = scores + gather(self.recency, histories.ages())
        return histories.softmax(scores)

    def forward(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """Interest vectors [n, heads * value_dim].

        targets: float [n, width]; table: float [m, width], the vectors of the items that the
        histories name. A single history may serve all targets: its keys are then shared.
        """
        if len(histories) < len(targets):
            clicked = F.embedding(histories.items, table)
            return self.of_one_history(self.as_targets(targets), self.as_clicks(clicked))
        weights = self.weights(targets, table, histories)
        return histories.weighted_sum(self.value(table), weights)

    def as_targets(self, items: Tensor) -> Tensor:
        """All that matters of items as targets: their queries, [m, heads * head_dim]."""
        return self.query(items) / self.head_dim**0.5

    def as_clicks(self, items: Tensor) -> Tensor:
        """All that matters of items as clicks: keys and values, [m, width of both]."""
        return torch.cat([self.key(items), self.value(items)], dim=1)

    def of_one_history(self, targets: Tensor, clicks: Tensor) -> Tensor:
        """Interest vectors [n, heads * value_dim] of n targets, which all share these clicks.

        targets: `as_targets` of each target; clicks: `as_clicks` of each click, the latest last.
        """
        keys, values = clicks.tensor_split([self.heads * self.head_dim], dim=1)
        queries, keys, values = (
            x.unflatten(1, (self.heads, -1)).transpose(0, 1) for x in (targets, keys, values)
        )
        # Clicks before targets: a softmax over the last of three dimensions takes twice as long.
        scores = keys @ queries.transpose(1, 2)
        if self.recency is not None:
            scores = scores + self.recency[: len(clicks)].flip(0).T.unsqueeze(2)
        interest = scores.softmax(dim=1).transpose(1, 2) @ values
        return interest.transpose(0, 1).flatten(1)


class MLPTargetAttention(nn.Module):
    """The activation unit of Deep Interest Network (Zhou et al., 2018, section 4.3).

    An MLP of [q, k, q - k, q * k] gives each click a weight; no softmax, so that the strength of
    an interest is kept. With several heads the MLP has several outputs.
    """

    def __init__(self, width: int, heads: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.first = nn.Linear(4 * width, hidden[0])
        self.rest = nn.Sequential(
            ReLUDropout(dropout),
            *DNN(hidden[0], hidden[1:], batch_norm=False, dropout=dropout),
            nn.Linear(hidden[-1], heads),
        )

    @property
    def interest_width(self) -> int:
        """Columns of the interest vector."""
        return self.heads * self.width

    def weights(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """Attention weights [clicks, heads]; any real number.

        The first layer is linear, so W [q, k, q - k, q * k] splits into a part of the target, a
        part of the item, computed once however often it was clicked, and a part of both.
        """
        histories = histories.for_rows(len(targets))
        of_target, of_item, product = self._first_parts(targets, table)
        both = gather(targets, histories.rows) * gather(table, histories.items)
        # In place: tensors as long as all clicks are costly to allocate.
        first = F.linear(both, product)
        first.add_(gather(of_item, histories.items)).add_(gather(of_target, histories.rows))
        return self.rest(first).float()

    def forward(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """Interest vectors [n, heads * width]; arguments as for multi-head attention."""
        histories = histories.for_rows(len(targets))
        weights = self.weights(targets, table, histories)
        return torch.cat(
            [histories.weighted_sum(table, weight) for weight in weights.split(1, dim=1)], dim=1
        )

    def as_targets(self, items: Tensor) -> Tensor:
        """Item vectors as they are."""
        return items

    as_clicks = as_targets

    def of_one_history(self, targets: Tensor, clicks: Tensor) -> Tensor:
        """Interest vectors [n, heads * width] of n targets that share these clicks.

        All pairs are one dense block, as ONNX needs it too.
        """
        of_target, of_item, product = self._first_parts(targets, clicks)
        first = F.linear(targets[:, None] * clicks, product)
        first = first.add_(of_item).add_(of_target[:, None])
        weights = self.rest(first).float()  # [n, clicks, heads]
        return (weights.transpose(1, 2) @ clicks.float()).flatten(1)

    def _first_parts(self, targets: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What targets and items give to the first layer, and its weight of their product."""
        query, key, difference, product = self.first.weight.split(self.width, dim=1)
        of_target = F.linear(targets, query + difference, self.first.bias)
        return of_target, F.linear(items, key - difference), product
