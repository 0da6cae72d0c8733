"""Draw negatives for logs that say what was clicked, but not what else was shown."""

from collections.abc import Callable

import numpy as np

from mmctr.data.importing.events import Events
from mmctr.data.importing.recipe import Recipe
from mmctr.errors import ConfigError

BLOCK = 1 << 17  # negatives that are drawn at once: they fit a processor's cache
SIEVE = 22  # bits of a key's hash that tell most items from those that were clicked
ATTEMPTS = 30
# Numbers in 0..1, one for each of the rows named, at an attempt that counts from 0.
Points = Callable[[np.ndarray, int], np.ndarray]


class NegativeSampler:
    """Draws items that a user never clicked, each as likely as any other or as popular as it is.

    weight: of each item, [n_items + 1], how likely it is drawn. user, item: the users' numbers and
    the items of all clicks, int64 [clicks].
    """

    def __init__(self, weight: np.ndarray, user: np.ndarray, item: np.ndarray) -> None:
        self.weight = weight.copy()
        self.weight[0] = 0  # padding
        found = np.flatnonzero(self.weight)
        # Items of equal weight, in their order: the place is the number itself.
        self.equal = found if (self.weight[found] == self.weight[found[:1]]).all() else None
        # A key of each click, to be searched; hardly any item that is drawn passes the sieve.
        self.clicked = np.sort(user * len(self.weight) + item)
        self.sieve = np.zeros(1 << SIEVE, dtype=bool)
        self.sieve[_hole(self.clicked)] = True

    def draw(self, user: np.ndarray, points: Points) -> np.ndarray:
        """An item for each user number, int64 [n]; 0 for a user who clicked all there are."""
        result = np.zeros(len(user), dtype=np.int64)
        for start in range(0, len(user), BLOCK):
            part = slice(start, start + BLOCK)
            result[part] = self._draw(
                user[part], lambda rows, n, start=start: points(start + rows, n)
            )
        return result

    def _draw(self, user: np.ndarray, points: Points) -> np.ndarray:
        cumulated, n_items = np.cumsum(self.weight, dtype=np.float64), len(self.weight)
        result, open_rows = np.zeros(len(user), dtype=np.int64), np.arange(len(user))
        for attempt in range(ATTEMPTS if cumulated[-1] else 0):
            point = points(open_rows, attempt) * cumulated[-1]
            drawn = (
                self.equal[(point / self.weight[self.equal[0]]).astype(np.int64)]
                if self.equal is not None
                else np.searchsorted(cumulated, point, "right")
            )
            result[open_rows] = drawn
            key = user[open_rows] * n_items + drawn
            maybe = np.flatnonzero(self.sieve[_hole(key)])
            key = key[maybe]
            place = np.minimum(np.searchsorted(self.clicked, key), len(self.clicked) - 1)
            open_rows = open_rows[maybe[self.clicked[place] == key]]
            if not len(open_rows):
                return result
        # Users who clicked nearly everything: draw from what is left to them.
        for number in np.unique(user[open_rows]):
            mine = open_rows[user[open_rows] == number]
            first, stop = np.searchsorted(self.clicked, (number * n_items, (number + 1) * n_items))
            left = self.weight.astype(np.float64)
            left[self.clicked[first:stop] - number * n_items] = 0
            upto = left.cumsum()
            drawn = np.searchsorted(upto, points(mine, ATTEMPTS) * upto[-1], "right")
            result[mine] = drawn if upto[-1] else 0
        return result


def _hole(key: np.ndarray) -> np.ndarray:
    """Where in the sieve a key falls: the highest bits of its product with an odd number."""
    return (key.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - SIEVE)


def sample_negatives(
    clicks: Events,
    train_clicks: np.ndarray,
    held_out: np.ndarray,
    recipe: Recipe,
    original: Callable[[int], str],
) -> np.ndarray:
    """Items that each click's user never clicked, int64 [clicks, negatives].

    train_clicks: int64 [items + 1]. held_out: int8 [items + 1]; clicks of new items are set against
    others of their own share, each as likely, because none of these has train clicks. What is drawn
    is a hash of seed, user, item and draw, so that neither the order nor the parts in which clicks
    come matter. original: a user's own id. Raises ConfigError for a user who clicked every item
    that could be drawn.
    """
    click = mixed(np.uint64(recipe.seed), clicks.user, clicks.item)
    drawn = np.zeros((len(clicks), recipe.negatives), dtype=np.int64)
    share = held_out[clicks.item]
    for number in np.unique(share):
        by_clicks = recipe.sampling == "popularity" and number == 0
        weight = (train_clicks if by_clicks else np.ones(len(held_out))) * (held_out == number)
        sampler = NegativeSampler(weight, clicks.user, clicks.item)
        asked = np.flatnonzero(share == number)

        def points(rows: np.ndarray, attempt: int, asked: np.ndarray = asked) -> np.ndarray:
            place, draw = np.divmod(rows, recipe.negatives)
            state = mixed(click[asked[place]], draw * (ATTEMPTS + 1) + attempt)
            return (state >> np.uint64(11)) * 2.0**-53

        user = np.repeat(clicks.user[asked], recipe.negatives)
        drawn[asked] = sampler.draw(user, points).reshape(-1, recipe.negatives)
    nothing_left = np.flatnonzero(drawn == 0) // recipe.negatives
    if len(nothing_left):
        new = "new " if share[nothing_left[0]] else ""
        raise ConfigError(
            f"User {original(clicks.user[nothing_left[0]])} clicked every {new}item "
            "that could be drawn as a negative: leave the user out, or import with "
            f"{'a larger --new-share' if new else '--negatives 0'}."
        )
    return drawn


def mixed(state: np.ndarray | np.uint64, *words: np.ndarray) -> np.ndarray:
    """A hash of a state and words, uint64 [n]; words: int64 [n] each, mixed in one after another.

    Each word goes through the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
    """
    for word in words:
        state = (word.astype(np.uint64) ^ state) + np.uint64(0x9E3779B97F4A7C15)
        state ^= state >> np.uint64(30)
        state *= np.uint64(0xBF58476D1CE4E5B9)
        state ^= state >> np.uint64(27)
        state *= np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state
