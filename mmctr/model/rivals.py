"""What the challenge's other systems are made of and the default leaves out, by paper.

momo is arXiv 2505.03543, QIN arXiv 2504.17699; MMCTRers has published its code alone. Histories
stay ragged: where clicks meet each other, rows with equally many clicks stand side by side as one
dense block, so that there is no padding and no mask.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmctr.errors import ConfigError
from mmctr.model.attention import Histories
from mmctr.model.layers import ReLUDropout
from mmctr.model.ragged import gather

Blocks = list[tuple[int, int]]  # how many rows, and how many clicks each of them has
PAIRS = 2**20  # of logits that are compared at once


class TransformerInterest(nn.Module):
    """momo's interest: clicks, each joined with the target, through a Transformer encoder.

    The interest is the last outputs, the oldest first and zero where there are fewer clicks, and a
    linear layer of the maximum over all. Positions are not encoded. An empty history is read as one
    click of nothing, a vector of zeros.
    """

    def __init__(
        self, width: int, *, layers: int, heads: int, feed_forward: int, dropout: float, last: int
    ) -> None:
        super().__init__()
        self.last, self.token_width = last, 2 * width
        _require_divisible(self.token_width, heads)
        self.layers = nn.ModuleList(
            EncoderLayer(self.token_width, heads, feed_forward, dropout) for _ in range(layers)
        )
        self.pooled = nn.Linear(self.token_width, self.token_width)

    def forward(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """Interest vectors [n, (last + 1) * 2 width]; arguments as for multi-head attention."""
        if len(histories) < len(targets):
            return self.of_one_history(targets, F.embedding(histories.items, table))
        lengths = histories.offsets.diff()
        order = lengths.argsort(stable=True)
        clicks = lengths[histories.rows].argsort(stable=True)
        counts = torch.bincount(lengths, minlength=2).tolist()
        empty, counts[0], counts[1] = counts[0], 0, counts[0] + counts[1]
        clicked = gather(table, histories.items[clicks])
        clicked = torch.cat([clicked.new_zeros(empty, clicked.shape[1]), clicked])
        rows = torch.repeat_interleave(order, lengths[order].clamp(min=1), output_size=len(clicked))
        tokens = torch.cat([clicked, gather(targets, rows)], dim=1)
        blocks = [(count, length) for length, count in enumerate(counts) if count]
        return gather(self._encoded(tokens, blocks), order.argsort())

    def weights(self, *_: object) -> Tensor:
        """ConfigError: clicks look at each other, so that none has a weight of its own."""
        raise ConfigError(
            "This model's attention is a Transformer encoder, which gives clicks no weights to "
            "show: choose a run with another attention."
        )

    def as_targets(self, items: Tensor) -> Tensor:
        """Item vectors as they are."""
        return items

    as_clicks = as_targets

    def of_one_history(self, targets: Tensor, clicks: Tensor) -> Tensor:
        """Interest vectors of n targets that share these clicks, the latest last."""
        if not len(clicks):
            clicks = targets.new_zeros(1, targets.shape[1])
        block = len(targets), len(clicks)
        tokens = [clicks.expand(*block, -1), targets[:, None].expand(*block, -1)]
        return self._encoded(torch.cat(tokens, dim=2).flatten(0, 1), [block])

    def _encoded(self, tokens: Tensor, blocks: Blocks) -> Tensor:
        for layer in self.layers:
            tokens = layer(tokens, blocks)
        last, highest = [], []
        for block in _dense(tokens, blocks):
            missing = max(0, self.last - block.shape[1])
            last.append(F.pad(block[:, -self.last :], (0, 0, missing, 0)).flatten(1))
            highest.append(block.amax(dim=1))
        return torch.cat([torch.cat(last), self.pooled(torch.cat(highest))], dim=1)


class InvertedTransformerInterest(TransformerInterest):
    """momo's interest with the mask of its public code, which hides clicks and shows the padding.

    Of a history padded to `longest` clicks, how many of the last places it fills is then all that
    counts, but of a full one also its latest click, which that code shows lest nothing be left.
    The padding of a row is all alike, so one token stands for it; its dropout, too, is one.
    """

    def __init__(self, width: int, longest: int, **sizes: Any) -> None:
        super().__init__(width, **sizes)
        self.longest = longest

    def forward(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """Interest vectors [n, (last + 1) * 2 width]; arguments as for multi-head attention."""
        histories = histories.for_rows(len(targets))
        lengths = histories.offsets.diff()
        full = lengths >= self.longest
        latest = F.pad(histories.items, (0, 1))[histories.offsets[1:] - 1]
        clicked = gather(F.pad(table, (0, 0, 0, 1)), torch.where(full, latest, len(table)))
        tokens = torch.cat([clicked, targets], dim=1)
        for layer in self.layers:
            tokens = layer(tokens, [(len(tokens), 1)])
        ages = torch.arange(self.last, 0, -1, device=tokens.device)
        shown = torch.where(full[:, None], ages == 1, ages > lengths[:, None])
        last = (tokens[:, None] * shown[:, :, None]).flatten(1)
        return torch.cat([last, self.pooled(tokens)], dim=1)

    def of_one_history(self, targets: Tensor, clicks: Tensor) -> Tensor:
        """Interest vectors of n targets that share these clicks, the latest last."""
        return self.forward(targets, clicks, Histories.one(clicks))


class EncoderLayer(nn.Module):
    """A layer of a Transformer encoder (Vaswani et al., 2017, section 3.1), clicks ragged.

    As torch.nn.TransformerEncoderLayer has it by default: normalised after each of its two parts.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.deep = _feed_forward(width, feed_forward, dropout)
        self.attended_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, blocks: Blocks) -> Tensor:
        """Clicks that have looked at each other, of tokens [clicks, width], rows of equal length
        side by side as blocks says."""
        dropout = self.dropout.p if self.training else 0.0
        attended = []
        for block in _dense(self.inward(tokens), blocks):
            query, key, value = block.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            found = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
            attended.append(found.transpose(1, 2).flatten(2).flatten(0, 1))
        found = self.dropout(self.outward(torch.cat(attended)))
        tokens = self.attended_norm(tokens + found)
        return self.norm(tokens + self.dropout(self.deep(tokens)))


class ReLUTargetAttention(nn.Module):
    """QIN's Adaptive Sparse Target Attention: scores through ReLU, and the target as a residual.

    Weights do not compete as in a softmax, and many are zero. What was found is projected back to
    the width of an item and added to the target.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        inner = 2 * width
        _require_divisible(inner, heads)
        self.width, self.heads, self.scale = width, heads, (inner // heads) ** -0.5
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width)

    def weights(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """Attention weights [clicks, heads], not negative."""
        histories = histories.for_rows(len(targets))
        scores = histories.dots(self.query(targets), self.key(table), self.heads)
        return F.relu(scores * self.scale)

    def forward(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """Interest vectors [n, width]; arguments as for multi-head attention."""
        if len(histories) < len(targets):
            clicked = F.embedding(histories.items, table)
            return self.of_one_history(self.as_targets(targets), self.as_clicks(clicked))
        weights = self.weights(targets, table, histories)
        return self.output(histories.weighted_sum(self.value(table), weights)) + targets

    def as_targets(self, items: Tensor) -> Tensor:
        """Items and their queries, [m, 3 width]."""
        return torch.cat([items, self.query(items)], dim=1)

    def as_clicks(self, items: Tensor) -> Tensor:
        """Keys and values, [m, 4 width]."""
        return torch.cat([self.key(items), self.value(items)], dim=1)

    def of_one_history(self, targets: Tensor, clicks: Tensor) -> Tensor:
        """Interest vectors [n, width] of n targets that share these clicks, both as above."""
        targets, queries = targets.tensor_split([self.width], dim=1)
        queries, keys, values = (
            x.unflatten(1, (self.heads, -1)).transpose(0, 1)
            for x in (queries, *clicks.chunk(2, dim=1))
        )
        weights = F.relu(queries @ keys.transpose(1, 2) * self.scale)
        return self.output((weights @ values).transpose(0, 1).flatten(1)) + targets


class CrossAttention(nn.Module):
    """MMCTRers' layers in which the target looks at its history again and again.

    With one query a row, a layer is that of a Transformer decoder without self-attention, with
    RMSNorm (Zhang and Sennrich, 2019). An empty history has nothing to show: zeros are attended.
    """

    def __init__(self, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        _require_divisible(width, heads)
        self.layers = nn.ModuleList(
            CrossAttentionLayer(width, heads, dropout) for _ in range(layers)
        )

    def forward(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """Interest vectors [n, width]; arguments as for multi-head attention."""
        histories = histories.for_rows(len(targets))
        for layer in self.layers:
            targets = layer(targets, table, histories)
        return targets


class CrossAttentionLayer(nn.Module):
    """One layer of CrossAttention. Queries, keys and values are projected twice, as published."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (
            nn.Sequential(nn.Linear(width, width), nn.Linear(width, width)) for _ in range(3)
        )
        self.outward, self.deep = nn.Linear(width, width), _feed_forward(width, width, dropout)
        self.found_norm, self.attended_norm, self.norm = (nn.RMSNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, targets: Tensor, table: Tensor, histories: Histories) -> Tensor:
        """Targets that have looked at their histories once more, [n, width]."""
        query, key, value = self.query(targets), self.key(table), self.value(table)
        scores = histories.dots(query, key, self.heads)
        weights = self.dropout(histories.softmax(scores * (query.shape[1] / self.heads) ** -0.5))
        found = self.found_norm(self.outward(histories.weighted_sum(value, weights)))
        targets = self.attended_norm(targets + self.dropout(found))
        return self.norm(targets + self.dropout(self.deep(targets)))


class QuadraticNetwork(nn.Sequential):
    """QIN's Quadratic Neural Network: layers of products of the fields with themselves."""

    def __init__(
        self, width: int, layers: int, rows: int, *, batch_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        for _ in range(layers):
            self.append(QuadraticLayer(width, rows, batch_norm=batch_norm, dropout=dropout))


class QuadraticLayer(nn.Module):
    """x + PReLU(norm(x * sum over rows r of (W_r x + b_r))), with dropout of both factors.

    But for that dropout the rows add up to one: they make a layer larger, not more expressive.
    """

    def __init__(self, width: int, rows: int, *, batch_norm: bool, dropout: float) -> None:
        super().__init__()
        self.rows, self.linear = rows, nn.Linear(width, rows * width)
        self.norm = nn.BatchNorm1d(width) if batch_norm else nn.Identity()
        self.activation, self.dropout = nn.PReLU(), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """float [n, width] to the same."""
        factor = self.dropout(self.linear(x)).unflatten(1, (self.rows, -1)).sum(1)
        return x + self.dropout(self.activation(self.norm(x * factor)))


def pairwise_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over all pairs of a click and a negative of -log sigmoid(their difference of logits).

    RankNet's loss (Burges et al., 2005, section 3), over a batch as MMCTRers has it; zero without
    both labels. logits, label: float [n]. Memory is linear in n: pairs are compared by blocks, and
    their gradients summed at once.
    """
    return _Pairwise.apply(logits, label)


class _Pairwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, logits: Tensor, label: Tensor) -> Tensor:
        clicks, negatives = logits[label == 1], logits[label == 0]
        pairs = max(1, len(clicks) * len(negatives))
        total, of_negatives, of_clicks = logits.new_zeros(()), torch.zeros_like(negatives), []
        for part in clicks.split(max(1, PAIRS // max(1, len(negatives)))):
            behind = negatives - part[:, None]
            total += F.softplus(behind).sum()
            slope = behind.sigmoid_()
            of_clicks.append(-slope.sum(dim=1))
            of_negatives += slope.sum(dim=0)
        gradient = torch.zeros_like(logits)
        gradient[label == 1] = torch.cat(of_clicks) / pairs
        gradient[label == 0] = of_negatives / pairs
        ctx.save_for_backward(gradient)
        return total / pairs

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, outer: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer, None


def _dense(tokens: Tensor, blocks: Blocks) -> list[Tensor]:
    """Rows of equal length as [rows, length, width] each, of tokens [clicks, width]."""
    parts = tokens.split([rows * length for rows, length in blocks])
    return [part.unflatten(0, block) for part, block in zip(parts, blocks, strict=True)]


def _feed_forward(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), ReLUDropout(dropout), nn.Linear(hidden, width))


def _require_divisible(width: int, heads: int) -> None:
    """Raise ConfigError unless heads can share these columns."""
    if width % heads:
        raise ConfigError(
            f"Parameter 'heads' is {heads}, which does not divide the {width} columns that this "
            "attention shares among them: choose 1, or another embedding_dim."
        )
