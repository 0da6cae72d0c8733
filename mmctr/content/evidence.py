"""What items are judged by: their covers measured, which are alike, and what fits what."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from mmctr.content import titles
from mmctr.content.covers import CoverFacts, cover_facts
from mmctr.content.lookalikes import same_picture
from mmctr.content.mismatch import at_odds
from mmctr.data.audit import CONSTANT
from mmctr.data.dataset import Dataset

MANY = 5  # titles that share a picture, from which on it is a placeholder
BLOCK = 1000  # items with one picture, of which more are compared by their words alone


@dataclass(frozen=True)
class Evidence:
    """What items are judged by; every array has n_items + 1 rows."""

    dataset: Dataset

    @property
    def titles(self) -> np.ndarray:
        return self.dataset.catalog.titles

    @cached_property
    def covers(self) -> CoverFacts | None:
        """Measures of the covers; None where there are none."""
        catalog = self.dataset.catalog
        return cover_facts(catalog, self.dataset.folder) if catalog.covers else None

    @cached_property
    def picture(self) -> np.ndarray:
        """A number for each picture, as `same_picture` gives it; of its own without a cover."""
        if self.covers is None:
            return np.arange(self.dataset.catalog.n_items + 1)
        return same_picture(self.covers, self.dataset.catalog.image_features)

    @cached_property
    def words(self) -> np.ndarray:
        """A number for each title, whatever its case and signs."""
        return pd.factorize(np.array([titles.plain(one) for one in self.titles], object))[0]

    @cached_property
    def blank(self) -> np.ndarray:
        return titles.says_nothing(self.titles) > 0

    @cached_property
    def foreign(self) -> np.ndarray:
        """How strange the letters of each title are, as `titles.foreign` tells."""
        return titles.foreign(self.titles)

    @cached_property
    def odds(self) -> np.ndarray | None:
        """How much text and image are at odds, in nats; None if it cannot be told."""
        catalog = self.dataset.catalog
        text, image = catalog.text_features, catalog.image_features
        if text is None or image is None:
            return None
        known = ~self.blank & ~constant(text) & ~constant(image)
        if self.covers is not None:
            known &= self.covers.read
        known[0] = False
        return at_odds(text, image, known)

    @cached_property
    def twice(self) -> np.ndarray:
        """Of items with the picture of an earlier one: how alike their titles are; else NaN."""
        text, result = self.dataset.catalog.text_features, np.full(len(self.titles), np.nan)
        titled = np.where(self.blank, -1 - np.arange(len(self.titles)), self.picture)
        for items in shared(titled):
            if len(np.unique(self.words[items])) >= MANY:
                continue  # a placeholder
            alike = pd.Series(self.words[items]).duplicated().to_numpy().astype(float)
            if text is not None and len(items) <= BLOCK:
                features = text[items] - self._mean_text
                length = np.linalg.norm(features, axis=1, keepdims=True)
                unit = features / np.where(length > 0, length, 1)
                alike[1:] = np.maximum(alike, np.tril(unit @ unit.T, -1).max(axis=1))[1:]
            result[items[1:]] = alike[1:]
        return result

    @cached_property
    def _mean_text(self) -> np.ndarray:
        return self.dataset.catalog.text_features[1:].mean(axis=0)


def constant(features: np.ndarray) -> np.ndarray:
    """Which rows are zero or nearly constant, bool [n]; in parts, of maps of the disk."""
    result = np.zeros(len(features), dtype=bool)
    for start in range(0, len(features), 1 << 14):
        rows = slice(start, start + (1 << 14))
        part = features[rows]
        size = np.sqrt(np.square(part).mean(axis=1))
        result[rows] = part.std(axis=1) <= CONSTANT * size
    return result


def shared(number: np.ndarray) -> list[np.ndarray]:
    """The items, padding aside, of each number that several have, rising."""
    order = 1 + np.argsort(number[1:], kind="stable")
    sizes = np.unique(number[1:], return_counts=True)[1]
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return [np.sort(items) for items in parts if len(items) > 1]
