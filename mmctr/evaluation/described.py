"""An item that somebody describes: what the model makes of it, and of each of its parts."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from mmctr.content import fusion
from mmctr.content.strategies import IDS, STRATEGIES
from mmctr.data.catalog import Catalog
from mmctr.evaluation.new_items import Trial, sharing, unit_vectors
from mmctr.model.din import DIN
from mmctr.training.prediction import predict

USERS = 300  # whose scores stand for those of all
COMPARED = 40  # new items whose scores a description is set beside
LEAST = 10  # users with a tag in their history, below which their mean says little
WHOLE = "whole"


@dataclass(frozen=True)
class Description:
    """An item in its parts; a part that is not there says nothing.

    tags: of the catalog. text, image: features, float32 [width], or None. item: the one that parts
    were taken from, 0 for none.
    """

    title: str = ""
    tags: tuple[int, ...] = ()
    text: np.ndarray | None = None
    image: np.ndarray | None = None
    item: int = 0

    @classmethod
    def of_item(cls, catalog: Catalog, item: int) -> "Description":
        """An item of the catalog as if it were described anew."""
        both = (catalog.text_features, catalog.image_features)
        text, image = (None if values is None else values[item] for values in both)
        tags = tuple(tag for tag in catalog.tags[item].tolist() if tag)
        return cls(str(catalog.titles[item]), tags, text, image, item)

    def without(self, part: str) -> "Description":
        """The same without one of its parts: text, image or tags."""
        return replace(self, **{part: () if part == "tags" else None})


class Prospects:
    """What a trial's best model says of described items: which users would click them.

    Features that are missing are those of the mean item, which says least to a linear strategy.
    Works with strategies that embed text and image; without any, with tags alone.
    """

    def __init__(self, trial: Trial) -> None:
        self.trial, self.catalog = trial, trial.dataset.catalog
        usable = [name for name in trial.models if name in STRATEGIES]
        self.strategy = trial.best if trial.best in usable else (*usable, IDS)[0]
        self.model = trial.models.get(self.strategy)
        self.transformer = trial.transformers.get(self.strategy)
        order = np.random.default_rng(0).permutation(len(trial.rows))
        _, first = np.unique(trial.rows.user[order], return_index=True)
        self.rows = trial.rows.select(np.sort(order[np.sort(first)[:USERS]]))

    def parts(self, described: Description) -> list[str]:
        """Which parts a description has: of text, image and tags."""
        there = {"text": described.text is not None, "image": described.image is not None}
        return [part for part in there if there[part]] + (["tags"] if described.tags else [])

    def vector(self, described: Description) -> np.ndarray | None:
        """The item embedding of a description by the model's strategy, [width]."""
        if self.transformer is None:
            return None
        given = {"text": described.text, "image": described.image}
        row = [mean if given[part] is None else given[part] for part, mean in self._means.items()]
        features = np.concatenate(row)[None].astype(np.float32)
        return fusion.padded(self.transformer.transform(features))[1]

    def neighbours(self, described: Description, count: int = 6) -> pd.DataFrame:
        """Other items whose embedding is most like that of a description: item, cosine."""
        vector = self.vector(described)
        if vector is None:
            return pd.DataFrame(columns=["item", "cosine"])
        seen = fusion.vectors(np.stack([np.zeros_like(vector), vector]), self.transformer)
        likeness = self._unit @ unit_vectors(seen)[1]
        order = np.argsort(-likeness, kind="stable")
        items = order[(order > 0) & (order != described.item)][:count]
        return pd.DataFrame({"item": items, "cosine": likeness[items]})

    def scores(self, described: Description) -> pd.DataFrame:
        """Predicted probabilities of a click by each user of the sample, a column a variant.

        Columns: user (own id), whole, and the description without each of its parts.
        """
        variants = {WHOLE: described}
        variants |= {part: described.without(part) for part in self.parts(described)}
        width = self.catalog.tags.shape[1]
        tags = np.zeros((len(variants), width), dtype=np.int32)
        for row, one in zip(tags, variants.values(), strict=True):
            row[: len(one.tags)] = one.tags[:width]
        content = None
        if self.transformer is not None:
            content = np.stack([self.vector(one) for one in variants.values()])
        model = with_items(self.model, tags, content)
        items = self.model.n_items + 1 + np.arange(len(variants))
        found = self._predicted(model, items)
        names = self.trial.dataset.user_names(self.rows.user)
        return pd.DataFrame({"user": names} | dict(zip(variants, found, strict=True)))

    def by_tag(self, scores: np.ndarray) -> pd.DataFrame:
        """Mean scores, float [users], of the users who clicked each tag, the highest first.

        Columns: tag, users, score; tags that fewer than 10 users clicked are left out.
        """
        sums = self._clicked_tags.T @ scores
        table = pd.DataFrame({"users": self._clicked_tags.sum(axis=0)})
        table["score"] = sums / table["users"].clip(lower=1)
        table = table.rename_axis("tag").reset_index()
        table = table[(table["users"] >= LEAST) & (table["tag"] > 0)]
        return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)

    @cached_property
    def usual(self) -> np.ndarray:
        """Mean scores of a sample of new items, float [k], to compare a description with."""
        new = np.flatnonzero(self.trial.new)
        items = np.random.default_rng(0).permutation(new)[:COMPARED]
        return self._predicted(self.model, items).mean(axis=1)

    def _predicted(self, model: DIN, items: np.ndarray) -> np.ndarray:
        """Probabilities [items, users]; levels are those of the items now."""
        rows = self.rows.select(np.tile(np.arange(len(self.rows)), len(items)))
        target = np.repeat(items, len(self.rows)).astype(np.int32)
        rows = replace(rows, target=target, label=None, levels=None)
        return predict(model, rows).reshape(len(items), len(self.rows))

    @cached_property
    def _means(self) -> dict[str, np.ndarray]:
        features = {"text": self.catalog.text_features, "image": self.catalog.image_features}
        return {name: own[1:].mean(axis=0) for name, own in features.items() if own is not None}

    @cached_property
    def _unit(self) -> np.ndarray:
        content = self.model.embedding.content.detach().cpu().numpy()
        return unit_vectors(fusion.vectors(content, self.transformer))

    @cached_property
    def _clicked_tags(self) -> np.ndarray:
        """Whether each user's history has each tag, bool [users, tags]."""
        found = np.zeros((len(self.rows), int(self.catalog.tags.max(initial=0)) + 1), dtype=bool)
        for row in range(len(self.rows)):
            found[row, self.catalog.tags[self.rows.history(row)].ravel()] = True
        return found


def with_items(model: DIN, tags: np.ndarray, content: np.ndarray | None) -> DIN:
    """A copy of a model that also knows k new items, numbered from n_items + 1.

    tags: int [k, tags per item]. content: float32 [k, width], or None for a model without. The
    weights are shared.
    """
    grown, own = sharing(model), model.embedding
    count, embedding = len(tags), grown.embedding
    known = torch.ones_like(own.item_levels[:, 0], dtype=torch.bool)
    known = known if own.known is None else own.known
    for name, values, more in (
        ("item_tags", own.item_tags, torch.as_tensor(tags)),
        ("item_levels", own.item_levels, own.item_levels.new_zeros(count, 2)),
        ("known", known, known.new_zeros(count)),
        ("item_fields", own.item_fields, None),
    ):
        if values is not None:
            more = values.new_zeros(count, *values.shape[1:]) if more is None else more.to(values)
            embedding.register_buffer(name, torch.cat([values, more]))
    if own.content is not None:
        joined = torch.cat([own.content.detach(), torch.as_tensor(content).to(own.content)])
        kept = own.semantic_ids is None
        embedding.content = torch.nn.Parameter(joined, requires_grad=False) if kept else joined
    if own.beside is not None:
        codes = torch.from_numpy(own.beside.quantizer.transform(content)).to(own.beside.codes)
        embedding.beside.codes = torch.cat([own.beside.codes, codes])
    return grown
