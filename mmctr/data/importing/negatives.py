"""Draw negatives for logs that say what was clicked, but not what else was shown."""

import numpy as np

from mmctr.data import schema
from mmctr.data.importing.events import Clicks
from mmctr.data.importing.recipe import Recipe
from mmctr.errors import ConfigError

BLOCK = 1 << 22  # negatives that are drawn at once


class NegativeSampler:
    """Draws items that a user never clicked, each as likely as any other or as popular as it is.

    train_clicks: int64 [n_items + 1], which sampling "popularity" draws by. user, item: the users'
    numbers and the items of all clicks, int64 [clicks].
    """

    def __init__(
        self,
        sampling: schema.Sampling,
        train_clicks: np.ndarray,
        user: np.ndarray,
        item: np.ndarray,
    ) -> None:
        self.weight = np.ones(len(train_clicks)) if sampling == "uniform" else train_clicks.copy()
        self.weight[0] = 0  # padding
        # A key of each click, to be searched.
        self.clicked = np.sort(user * len(self.weight) + item)

    def draw(self, user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An item for each user number, int64 [n]; 0 for a user who clicked all there are."""
        result = np.zeros(len(user), dtype=np.int64)
        for start in range(0, len(user), BLOCK):
            part = slice(start, start + BLOCK)
            result[part] = self._draw(user[part], rng)
        return result

    def _draw(self, user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        cumulated, n_items = np.cumsum(self.weight, dtype=np.float64), len(self.weight)
        result, open_rows = np.zeros(len(user), dtype=np.int64), np.arange(len(user))
        for _ in range(30):
            point = rng.random(len(open_rows)) * cumulated[-1]
            drawn = np.searchsorted(cumulated, point, "right")
            result[open_rows] = drawn
            key = user[open_rows] * n_items + drawn
            place = np.minimum(np.searchsorted(self.clicked, key), len(self.clicked) - 1)
            open_rows = open_rows[self.clicked[place] == key]
            if not len(open_rows):
                return result
        # Users who clicked nearly everything: draw from what is left to them.
        for number in np.unique(user[open_rows]):
            mine = open_rows[user[open_rows] == number]
            first, stop = np.searchsorted(self.clicked, (number * n_items, (number + 1) * n_items))
            left = self.weight.astype(np.float64)
            left[self.clicked[first:stop] - number * n_items] = 0
            total = left.sum()
            result[mine] = rng.choice(n_items, size=len(mine), p=left / total) if total else 0
        return result


def sample_negatives(clicks: Clicks, train_clicks: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Items that each click's user never clicked, int64 [clicks, negatives].

    train_clicks: int64 [items + 1]. Raises ConfigError for a user who clicked every item that
    could be drawn.
    """
    number = np.cumsum(clicks.start == np.arange(len(clicks.start))) - 1
    sampler = NegativeSampler(recipe.sampling, train_clicks, number, clicks.item)
    rng = np.random.default_rng(recipe.seed)
    drawn = sampler.draw(np.repeat(number, recipe.negatives), rng)
    drawn = drawn.reshape(len(number), recipe.negatives)
    nothing_left = np.flatnonzero((drawn == 0).any(axis=1))
    if len(nothing_left):
        raise ConfigError(
            f"User {clicks.user[nothing_left[0]]} clicked every item, so there are no negatives to "
            "draw: leave the user out, or import with --negatives 0."
        )
    return drawn
