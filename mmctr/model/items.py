"""The unified embedding of items: what the tables say of them, and the vector that it makes."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmctr.model.layers import ITEM_FIELDS, SEMANTIC_IDS, FieldEmbedding, weighted_rows
from mmctr.model.ragged import gather
from mmctr.model.sharded import Shard


class ItemRows(NamedTuple):
    """What the tables of items say of some, [m, ...] each; None where there is no such table.

    levels: int8 [m, 2]. unknown: bool [m], which of them show no identity: neither id nor levels.
    codes: their semantic ids beside content.
    """

    ids: Tensor
    levels: Tensor
    tags: Tensor
    content: Tensor | None
    fields: Tensor | None
    codes: Tensor | None
    unknown: Tensor | None


class ItemEmbedding(nn.Module):
    """The unified embedding: history items and targets share it (arXiv 2504.18961).

    An item's vector is the concatenation of its fields: id, mean of its tags, content (the fused
    text and image embedding), its semantic ids, what else is known of it (FieldEmbedding), and the
    two popularity levels.

    Arguments: tags int [n_items + 1, tags per item]; levels int [n_items + 1, 2]; content float
    [n_items + 1, width], or int [n_items + 1, levels] of as many semantic_ids, or None; field_codes
    int [n_items + 1, fields] of as many field_sizes, or None; known bool [n_items + 1], items whose
    identity training learns, or None for all; beside, what makes a field of semantic ids beside
    content, or None; shard, of whose rows all these are, or None for the whole. Row 0 is padding.
    """

    TABLES = ("id.weight", "content", "item_tags", "item_levels", "item_fields", "known")
    TABLES += ("beside.codes",)  # what has a row an item

    def __init__(
        self,
        tags: Tensor,
        levels: Tensor,
        content: Tensor | None,
        field_codes: Tensor | None = None,
        known: Tensor | None = None,
        *,
        field_sizes: Sequence[int] = (),
        dim: int,
        n_tags: int,
        n_levels: int,
        content_mode: Literal["projected", "frozen", "finetuned"],
        content_dim: int,
        semantic_ids: Sequence[int] = (),
        beside: nn.Module | None = None,
        shard: Shard | None = None,
    ) -> None:
        super().__init__()
        self.shard = shard
        self.register_buffer("item_tags", tags)
        self.register_buffer("item_levels", levels)
        self.register_buffer("known", known)
        first = None if shard is None else shard.normal_(torch.empty(len(tags), dim))
        self.id = nn.Embedding(len(tags), dim, padding_idx=0, _weight=first)
        self.tags = nn.EmbeddingBag(n_tags, dim, mode="mean", padding_idx=0)
        self.likes_level = nn.Embedding(n_levels, dim)
        self.views_level = nn.Embedding(n_levels, dim)
        (nn.init.normal_ if shard is None else shard.normal_)(self.id.weight, std=0.01)
        for table in (self.tags, self.likes_level, self.views_level):
            nn.init.normal_(table.weight, std=0.01)
        for table in (self.id, self.tags):
            nn.init.zeros_(table.weight[0])
        self.projection, content_width = None, 0
        self.semantic_ids = FieldEmbedding(semantic_ids, dim) if semantic_ids else None
        if content is None or semantic_ids:
            self.register_buffer("content", content)
            content_width = dim if semantic_ids else 0
        else:
            learns = content_mode == "finetuned"
            # Only what learns is a copy of the caller's array: it must not change in their hands.
            content = content.to(torch.float32, copy=learns)
            self.content = nn.Parameter(content, requires_grad=learns)
            content_width = content.shape[1]
            if content_mode != "frozen":
                self.projection = nn.Linear(content_width, content_dim, bias=False)
                content_width = content_dim
        self.beside = beside
        self.register_buffer("item_fields", field_codes)
        self.fields = FieldEmbedding(field_sizes, dim) if field_sizes else None
        widths = {"id": dim, "tags": dim, "content": content_width}
        widths |= {SEMANTIC_IDS: dim if beside else 0, ITEM_FIELDS: dim if field_sizes else 0}
        widths |= {"likes_level": dim, "views_level": dim}
        self.widths = {name: width for name, width in widths.items() if width}

    def sparse_gradients(self, wanted: bool) -> None:
        """Whether the gradients of ids and of finetuned content hold only the rows of a batch."""
        self.id.sparse = wanted

    @property
    def n_items(self) -> int:
        """The number of items, padding not counted, whoever holds their rows."""
        return len(self.item_tags) - 1 if self.shard is None else self.shard.n_items

    @property
    def tables(self) -> set[str]:
        """Those of TABLES that it has."""
        return set(self.TABLES) & self.state_dict().keys()

    def look_up(self, items: Tensor) -> ItemRows:
        """What the tables say of items, int64 [m], whichever process holds them."""
        return self._rows(items) if self.shard is None else self.shard.look_up(items, self._rows)

    def answer_others(self) -> None:
        """Answer what other processes look up, until all have come here; nothing if it is whole."""
        if self.shard is not None:
            self.shard.answer(self._rows, self.item_tags.device)

    def _rows(self, items: Tensor) -> ItemRows:
        """What the tables of this process say of their rows, int64 [m]."""
        unknown, ids, levels, content = None, items, self.item_levels[items], self.content
        if self.known is not None:
            # Padding and level 0 are what says nothing.
            unknown = ~self.known[items]
            ids, levels = ids.masked_fill(unknown, 0), levels.masked_fill(unknown[:, None], 0)
        if content is not None:
            is_ids = self.semantic_ids is not None
            content = (
                content[items] if is_ids else F.embedding(items, content, sparse=self.id.sparse)
            )
        fields = None if self.fields is None else self.item_fields[items]
        codes = None if self.beside is None else self.beside.codes[items]
        return ItemRows(
            self.id(ids), levels, self.item_tags[items], content, fields, codes, unknown
        )

    def forward(self, items: Tensor) -> Tensor:
        """Embed items, int64 [m], as [m, sum of the fields' widths]."""
        return self.vectors(self.look_up(items))

    def vectors(self, rows: ItemRows) -> Tensor:
        """Embed items of which this is known, [m, sum of the fields' widths]."""
        tags = rows.tags.long()
        given = (tags != 0).float()
        shares = given / given.sum(dim=1, keepdim=True).clamp(min=1)
        fields = [rows.ids, weighted_rows(self.tags.weight, tags, shares)]
        if self.semantic_ids is not None:
            fields.append(self.semantic_ids(rows.content))
        elif rows.content is not None:
            content = rows.content
            fields.append(content if self.projection is None else self.projection(content))
        if self.beside is not None:
            fields.append(self.beside(rows.codes))
        if self.fields is not None:
            fields.append(self.fields(rows.fields))
        fields.append(self.of_levels(rows.levels.long()))
        return torch.cat(fields, dim=1)

    def of_levels(self, levels: Tensor) -> Tensor:
        """The last two fields of items whose popularity levels, int64 [m, 2], are given."""
        both = torch.cat([self.likes_level.weight, self.views_level.weight])
        second = levels.new_tensor([0, self.likes_level.num_embeddings])
        return gather(both, levels + second).flatten(1)
