"""The Deep Interest Network of arXiv 2504.18961, assembled from its configuration."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.fields import Field
from mmctr.data.schema import LEVELS
from mmctr.errors import ConfigError
from mmctr.model.batch import Batch
from mmctr.model.config import DINConfig
from mmctr.model.interest import interest
from mmctr.model.items import ItemEmbedding, ItemRows
from mmctr.model.layers import (
    CONTEXT,
    DNN,
    SEMANTIC_IDS,
    SIMILARITY,
    USER_FIELDS,
    BilinearInteraction,
    CrossNetwork,
    FieldEmbedding,
    SENet,
)
from mmctr.model.pretrained import Pretrained
from mmctr.model.ragged import gather
from mmctr.model.rivals import QuadraticNetwork
from mmctr.model.semantic import CODEWORDS, SemanticIds, ids_of
from mmctr.model.sharded import Shard, own_rows
from mmctr.model.similarity import HistorySimilarity

FieldSizes = dict[str, list[int]]  # how many codes each field has, by owner


def field_sizes(*fields: Field) -> FieldSizes:
    """How many codes each field has, by owner, of those that have any."""
    sizes: FieldSizes = {}
    for field in fields:
        sizes.setdefault(field.owner, []).append(field.size)
    return sizes


class DIN(Pretrained, nn.Module):
    """Unified embedding, target attention, SENet, bilinear interaction, cross network, DNN.

    With `attention="mlp"`, one head, `content_dim=128` and the other switches off this is the
    official baseline DIN. Built from sizes alone, so that a run can be loaded without its data;
    `DIN.for_catalog` fills in what is known of the items.
    """

    def __init__(
        self,
        config: DINConfig,
        *,
        tags: Tensor,
        levels: Tensor,
        content: Tensor | None,
        n_tags: int,
        item_fields: Tensor | None = None,
        field_sizes: FieldSizes | None = None,
        known: Tensor | None = None,
        shard: Shard | None = None,
    ) -> None:
        super().__init__()
        sizes = field_sizes or {}
        self.config, dim = config, config.embedding_dim
        ids, beside = sizes.get(SEMANTIC_IDS, ()), None
        if CODEWORDS in sizes:
            beside = SemanticIds(len(tags), content.shape[1], *sizes[CODEWORDS], ids, dim)
        self.embedding = ItemEmbedding(
            tags,
            levels,
            content,
            item_fields,
            known if config.identity_dropout else None,
            field_sizes=sizes.get("item", ()) if config.item_fields else (),
            dim=dim,
            n_tags=n_tags,
            n_levels=LEVELS,
            content_mode=config.content,
            content_dim=config.content_dim or dim,
            semantic_ids=() if beside else ids,
            beside=beside,
            shard=shard,
        )
        widths = dict(self.embedding.widths)
        in_history = [
            name for name in widths if config.levels_in_history or not name.endswith("_level")
        ]
        self.history_width = sum(widths[name] for name in in_history)
        self.attention, of_interest = interest(config, {name: widths[name] for name in in_history})
        widths |= of_interest
        self.similarity = None
        if config.similarity and content is not None and content.is_floating_point():
            self.similarity = HistorySimilarity(content.shape[1], config.heads, dim)
            widths[SIMILARITY] = dim
        self.user_fields = self.context = None
        if config.user_fields and sizes.get("user"):
            self.user_fields = FieldEmbedding(sizes["user"], dim)
            widths[USER_FIELDS] = dim
        if config.context and sizes.get("context"):
            self.context = FieldEmbedding(sizes["context"], dim)
            widths[CONTEXT] = dim
        self.field_sizes = sizes
        self.fields, self.field_widths = list(widths), widths
        uneven = [name for name in widths if widths[name] != dim]
        if uneven and (config.senet or config.bilinear != "off"):
            raise ConfigError(
                f"SENet and bilinear interaction need fields of equal width, but {uneven[0]!r} has "
                f"{widths[uneven[0]]} columns and embedding_dim is {dim}: set "
                "content='projected', an attention other than 'transformer', or switch both off."
            )
        width = deep_width = sum(widths.values())
        self.senet = SENet(len(widths)) if config.senet else None
        self.bilinear = None
        if config.bilinear != "off":
            self.bilinear = BilinearInteraction(len(widths), dim, config.bilinear)
            deep_width += self.bilinear.pairs * dim
        kind = {"batch_norm": config.batch_norm, "dropout": config.dropout}
        self.cross = CrossNetwork(width, config.cross_layers) if config.cross_layers else None
        self.quadratic = None
        if layers := config.quadratic_layers:
            self.quadratic = QuadraticNetwork(width, layers, config.quadratic_rows, **kind)
        self.dnn = DNN(deep_width, config.hidden, **kind) if config.hidden else None
        wide = [part for part in (self.cross, self.quadratic) if part is not None]
        found = sum(config.hidden[-1:]) + len(wide) * width
        self.joined = DNN(found, config.joined_hidden, batch_norm=False, dropout=0.0)
        self.output = nn.Linear([found, *config.joined_hidden][-1], 1)

    @classmethod
    def for_catalog(
        cls,
        config: DINConfig,
        catalog: Catalog,
        item_embedding: np.ndarray | None,
        row_fields: Sequence[Field] = (),
        train_clicks: np.ndarray | None = None,
        origin: "DIN | None" = None,
        shard: Shard | None = None,
    ) -> "DIN":
        """A new model for the items of a catalog.

        item_embedding: float32 [n_items + 1, width] or semantic ids, int32 [n_items + 1, levels],
        from a strategy, or None for ids and tags only. row_fields: what is known of the users and
        the context of rows. train_clicks: int64 [n_items + 1], which say whose identity can be
        learned; without them every item's is. origin: a model of other items, whose semantic ids
        mean the same here. shard: what this process is to hold of the items' tables, None for all.
        """
        levels = np.stack([catalog.likes_level, catalog.views_level], axis=1)
        sizes = field_sizes(*catalog.fields, *row_fields)
        ids, quantizer = ids_of(item_embedding, config.semantic_ids, origin)
        known = np.ones(catalog.n_items + 1, dtype=bool)
        if train_clicks is not None:
            known = train_clicks >= config.min_clicks
        codes = catalog.field_codes if catalog.fields else None
        content = own_rows(item_embedding, shard)
        model = cls(
            config,
            tags=own_rows(catalog.tags, shard),
            levels=own_rows(levels, shard),
            content=content,
            n_tags=int(catalog.tags.max(initial=0)) + 1,
            item_fields=own_rows(codes, shard),
            field_sizes=sizes | ids,
            known=own_rows(known, shard),
            shard=shard,
        )
        if model.embedding.beside is not None:
            model.embedding.beside.take(quantizer, content.numpy())
        return model

    @classmethod
    def for_dataset(
        cls,
        config: DINConfig,
        dataset: Dataset,
        item_embedding: np.ndarray | None,
        origin: "DIN | None" = None,
        shard: Shard | None = None,
    ) -> "DIN":
        """A new model for a dataset: its items, its fields, and what train can teach of items."""
        known = (dataset.row_fields, dataset.train_clicks(), origin, shard)
        return cls.for_catalog(config, dataset.catalog, item_embedding, *known)

    @classmethod
    def of_sizes(
        cls,
        config: DINConfig,
        *,
        n_items: int,
        tags_per_item: int,
        n_tags: int,
        content_width: int | None,
        field_sizes: FieldSizes | None = None,
        shard: Shard | None = None,
    ) -> "DIN":
        """A model of the given sizes whose weights and item features are yet to be loaded."""
        own, content = (field_sizes or {}).get("item", ()), None
        rows = n_items + 1 if shard is None else len(shard)
        if content_width is not None:
            instead = {SEMANTIC_IDS, CODEWORDS} & set(field_sizes or {}) == {SEMANTIC_IDS}
            kind = torch.int32 if instead else torch.float32
            content = torch.zeros(rows, content_width, dtype=kind)
        return cls(
            config,
            tags=torch.zeros(rows, tags_per_item, dtype=torch.int32),
            levels=torch.zeros(rows, 2, dtype=torch.int8),
            content=content,
            n_tags=n_tags,
            item_fields=torch.zeros(rows, len(own), dtype=torch.int32) if own else None,
            field_sizes=field_sizes,
            known=torch.ones(rows, dtype=torch.bool),
            shard=shard,
        )

    @property
    def sizes(self) -> dict[str, Any]:
        """What `of_sizes` needs to build this model again."""
        content, tags = self.embedding.content, self.embedding.item_tags
        return {
            "n_items": self.n_items,
            "tags_per_item": tags.shape[1],
            "n_tags": self.embedding.tags.num_embeddings,
            "content_width": None if content is None else content.shape[1],
            **({"field_sizes": self.field_sizes} if self.field_sizes else {}),
        }

    @property
    def n_items(self) -> int:
        """The number of items, padding not counted."""
        return self.embedding.n_items

    @property
    def sharded(self) -> set[str]:
        """The names of weights and facts of which this process holds some rows; mostly none."""
        tables = self.embedding.tables if self.embedding.shard else ()
        return {f"embedding.{name}" for name in tables}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.output.weight.device

    def learned_state(self) -> dict[str, Tensor]:
        """A copy of all that training changes: `state_dict` without what is known of the items."""
        known_of_items = ["item_tags", "item_levels", "item_fields", "known"]
        if self.embedding.semantic_ids is not None:
            known_of_items.append("content")
        fixed = {f"embedding.{name}" for name in known_of_items}
        fixed |= {name for name, weight in self.named_parameters() if not weight.requires_grad}
        if (beside := self.embedding.beside) is not None:
            fixed |= {f"embedding.beside.{name}" for name, _ in beside.named_buffers()}
        return {
            name: value.clone() for name, value in self.state_dict().items() if name not in fixed
        }

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a click, float [n]."""
        return self.score(self.field_vectors(batch))

    def score(self, fields: Tensor) -> Tensor:
        """Logits, float [n], from the field vectors of each row."""
        if self.senet:
            fields = self.senet(self._as_fields(fields)).flatten(1)
        parts = [] if self.dnn is None else [self.dnn(self._with_products(fields))]
        wide = (self.cross, self.quadratic)
        parts += [part(fields) for part in wide if part is not None]
        return self.output(self.joined(torch.cat(parts, dim=1))).squeeze(1)

    def field_vectors(self, batch: Batch) -> Tensor:
        """The fields of each row before SENet: target fields, then interest, [n, width]."""
        items = self.embedding.look_up(batch.items)
        target, clicked = self._items(batch, items)
        interest = self.attention(target[:, : self.history_width], clicked, batch.histories)
        fields = [target, interest.to(target.dtype)]
        if self.similarity:
            content = self.similarity.as_items(items.content)
            similar = self.similarity(gather(content, batch.target), content, batch.histories)
            fields.append(similar.to(target.dtype))
        if self.user_fields or self.context:
            fields.append(self.row_vectors(batch.fields))
        return torch.cat(fields, dim=1)

    def row_vectors(self, codes: Tensor) -> Tensor:
        """What is known of the users and the context of rows, [n, width], of codes [n, fields]."""
        vectors = [embed(own) for embed, own in self.row_fields(codes).values()]
        return torch.cat([self.output.weight.new_empty(len(codes), 0), *vectors], dim=1)

    def row_fields(self, codes: Tensor) -> dict[str, tuple[FieldEmbedding, Tensor]]:
        """What embeds the fields of users and of the context, by slot, and their codes."""
        users = len(self.field_sizes.get("user", ()))
        known = {
            USER_FIELDS: (self.user_fields, slice(users)),
            CONTEXT: (self.context, slice(users, None)),
        }
        return {
            slot: (embed, codes[:, own])
            for slot, (embed, own) in known.items()
            if embed is not None
        }

    def _items(self, batch: Batch, items: ItemRows) -> tuple[Tensor, Tensor]:
        """Vectors of the targets as known at the time, [n, width], and of the distinct items as
        clicks, [m, history_width]."""
        table = self.embedding.vectors(items)
        target, clicked = gather(table, batch.target), table[:, : self.history_width]
        levels, hidden = batch.levels, self._hidden(batch, items.unknown)
        if levels is None and hidden is None:
            return target, clicked
        if levels is None:
            levels = items.levels[batch.target].long()
        dim = self.embedding.id.embedding_dim
        own_id, rest = target[:, :dim], target[:, dim : -2 * dim]
        if hidden is not None:
            levels = levels.masked_fill(hidden[:, None], 0)
            # The vector of padding, which an unknown id has, is zero.
            own_id = own_id.masked_fill(hidden[:, None], 0)
        levels = self.embedding.of_levels(levels).to(target.dtype)
        return torch.cat([own_id, rest, levels], dim=1), clicked

    def _hidden(self, batch: Batch, unknown: Tensor | None) -> Tensor | None:
        """Which rows, bool [n], show no identity of their target; None if all do.

        In training a share of the rows is as if its target were new, like a dropped field
        (DropoutNet: Volkovs et al., 2017): histories keep theirs, as those of new items' rows do.
        """
        hidden = None if unknown is None else unknown[batch.target]
        if self.training and self.config.identity_dropout:
            draw = torch.rand(len(batch), device=batch.target.device)
            dropped = draw < self.config.identity_dropout
            hidden = dropped if hidden is None else hidden | dropped
        return hidden

    def attention_weights(self, batch: Batch) -> Tensor:
        """Weights of the target attention, [clicks, heads]."""
        target, clicked = self._items(batch, self.embedding.look_up(batch.items))
        return self.attention.weights(target[:, : self.history_width], clicked, batch.histories)

    def field_weights(self, batch: Batch) -> Tensor:
        """SENet's weights of the fields, [n, fields]; ConfigError if the model has no SENet."""
        if not self.senet:
            raise ConfigError("This model has no SENet: train one with senet=True.")
        return self.senet.weights(self._as_fields(self.field_vectors(batch)))

    def _with_products(self, fields: Tensor) -> Tensor:
        if not self.bilinear:
            return fields
        return self.bilinear(self._as_fields(fields)).flatten(1)

    def _as_fields(self, flat: Tensor) -> Tensor:
        return flat.view(len(flat), -1, self.config.embedding_dim)
