"""What is simulated in the demo: items of known topics, and the users who click them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

THEMES = {
    "ocean": "reef whale tide harbour diver lagoon coral sailor island pearl",
    "desert": "dune camel oasis canyon nomad cactus mirage caravan scorpion sandstone",
    "forest": "oak moss fox cabin mushroom owl stream ranger fern badger",
    "city": "skyline subway rooftop market tower neon bridge tram alley plaza",
    "space": "comet orbit rocket moon galaxy astronaut nebula probe saturn eclipse",
    "kitchen": "noodle oven pastry chef spice dumpling skillet broth cheese pepper",
    "winter": "snow glacier sled igloo skates blizzard aurora husky icicle lodge",
    "garden": "rose beehive orchard tulip greenhouse hedge sparrow trellis lily pumpkin",
    "music": "piano drummer chorus violin vinyl concert melody guitar studio jazz",
    "sport": "marathon goalkeeper racket stadium sprint trophy climber surfer coach relay",
    "history": "castle pharaoh knight scroll temple emperor viking treasure legion ruin",
    "robots": "android circuit drone sensor gadget cyborg laser turbine engineer hologram",
}
FORMATS = {
    "tutorial": ("How to find a {}", "Learn the {} in minutes", "{}: step by step"),
    "review": ("We tested the {}", "Is the {} worth it?", "{}, an honest review"),
    "story": ("The last {}", "A {} and its secret", "Once there was a {}"),
    "comedy": ("When the {} goes wrong", "Funniest {} moments", "My {} laughs at me"),
    "news": ("Breaking: {} found", "What the {} means today", "{} makes headlines"),
    "challenge": ("24 hours with a {}", "We tried the {} challenge", "100 days of {}"),
    "interview": ("Meet the {} expert", "Ten questions about the {}", "Talking {} with a pro"),
    "tour": ("Inside the {}", "A walk to the {}", "{} from above"),
}
LOOKS = ("circles", "stripes", "triangles", "waves", "grid", "rays", "dots", "hills")
LATENT = 8  # numbers per topic vector
TOPIC_SPREAD = 0.6  # length of an item's own deviation from its topic's centre
CLICK_RATE = 0.25
SLOPE = 9.0
POPULARITY = 0.4
SHARPNESS = 6.0  # how much more a similar click counts in the affinity
DECAY = 0.97  # weight of a click beside the next later one
MAX_HISTORY = 100
SHOWN = 4  # items an impression group
BEGINNING = np.datetime64("2025-03-03", "ns").astype(np.int64)  # of the log, nanoseconds since 1970
SECOND = 1_000_000_000  # nanoseconds
DAY = 24 * 3600 * SECOND
PERIODS = (
    0,
    10,
    20,
    30,
    35,
    40,
)  # the days at which the steps of the simulation begin, and the end


@dataclass(frozen=True)
class Items:
    """Simulated items; all arrays have one row an item, padding not included."""

    theme: np.ndarray
    format: np.ndarray
    look: np.ndarray
    vectors: np.ndarray  # [items, 3 * LATENT]: theme, format, look
    popularity: np.ndarray  # shares, sum 1


def draw_items(rng: np.random.Generator, n: int) -> Items:
    """n items, each with a theme, a format and a look, and popularity by Zipf's law."""
    topics, vectors = [], []
    for names in (THEMES, FORMATS, LOOKS):
        centres = _unit(rng.normal(size=(len(names), LATENT)))
        topic = rng.integers(len(names), size=n)
        deviation = TOPIC_SPREAD * _unit(rng.normal(size=(n, LATENT)))
        topics.append(topic)
        vectors.append(_unit(centres[topic] + deviation))
    zipf = 1.0 / (10 + rng.permutation(n))
    return Items(*topics, np.hstack(vectors), zipf / zipf.sum())


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def simulate_clicks(rng: np.random.Generator, items: Items, n_users: int) -> pd.DataFrame:
    """One row an impression group: split, user, history, shown items, probabilities, labels, time.

    Item numbers count from 0 here. A group has one time, in nanoseconds since 1970.
    """
    (clock,) = rng.spawn(1)  # times take nothing from the draws of what happens at them
    lengths = np.clip(rng.lognormal(1.7, 0.95, n_users).astype(int), 0, MAX_HISTORY - SHOWN)
    n_steps = 5
    by_interest = _draw_by_interest(rng, items, lengths + 2 * n_steps)
    seen = np.zeros((n_users, len(items.theme)), dtype=bool)
    for user, drawn in enumerate(by_interest):
        seen[user, drawn] = True
    histories = [drawn[:length] for drawn, length in zip(by_interest, lengths, strict=True)]
    constant, groups, seconds = None, [], np.array(PERIODS) * DAY // SECOND
    order = rng.permutation(n_users)
    part = n_users * 5 // 16
    steps = [
        ("train", np.arange(n_users)),
        ("train", np.arange(n_users)),
        ("train", np.arange(0, n_users, 2)),
        ("valid", np.sort(order[:part])),
        ("test", np.sort(order[part : 2 * part])),
    ]
    for step, (split, users) in enumerate(steps):
        interest = np.stack([by_interest[user][lengths[user] + 2 * step :][:2] for user in users])
        shown = np.hstack([interest, _draw_by_popularity(rng, items, seen, users)])
        shown = rng.permuted(shown, axis=1)
        pairs = zip(users, shown, strict=True)
        affinity = [_affinity(items.vectors, histories[user], row) for user, row in pairs]
        logit = SLOPE * np.stack(affinity)
        logit += POPULARITY * np.log(items.popularity * len(items.popularity))[shown]
        if constant is None:
            constant = _constant_for_rate(logit)
        probability = 1 / (1 + np.exp(-(logit + constant)))
        label = rng.random(shown.shape) < probability
        time = BEGINNING + clock.integers(*seconds[step : step + 2], len(users)) * SECOND
        for user, *group in zip(users, shown, probability, label, time, strict=True):
            groups.append((split, user, histories[user], *group))
            histories[user] = np.append(histories[user], group[0][group[2]])[-MAX_HISTORY:]
    columns = ["split", "user", "history", "shown", "probability", "label", "time"]
    return pd.DataFrame(groups, columns=columns)


def _draw_by_interest(
    rng: np.random.Generator, items: Items, counts: np.ndarray
) -> list[np.ndarray]:
    """Distinct items of each user's one to three interests, in random order."""
    drawn = []
    for count in counts:
        interests = items.vectors[rng.integers(len(items.theme), size=rng.integers(1, 4))]
        similarity = interests @ items.vectors.T / 3
        weight = np.exp(8 * similarity) * np.sqrt(items.popularity)
        share = (weight / weight.sum(axis=1, keepdims=True)).mean(axis=0)
        # The largest of log share + Gumbel noise are a draw without replacement.
        keys = np.log(share) + rng.gumbel(size=len(share))
        drawn.append(rng.permutation(np.argpartition(-keys, count)[:count]))
    return drawn


def _draw_by_popularity(
    rng: np.random.Generator, items: Items, seen: np.ndarray, users: np.ndarray
) -> np.ndarray:
    """Two items a user, by popularity, that the user has not seen; they count as seen then."""
    cumulated = np.cumsum(items.popularity)
    result = np.zeros((len(users), 2), dtype=np.int64)
    for column in range(2):
        open_rows = np.arange(len(users))
        while len(open_rows):
            draw = np.searchsorted(cumulated, rng.random(len(open_rows)) * cumulated[-1])
            result[open_rows, column] = draw
            open_rows = open_rows[seen[users[open_rows], draw]]
        seen[users, result[:, column]] = True
    return result


def _affinity(vectors: np.ndarray, history: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Mean similarity of shown items to a history, weighted by similarity and recency."""
    if not len(history):
        return np.zeros(len(shown))
    similarity = vectors[shown] @ vectors[history].T / 3
    weight = history_weights(similarity, np.arange(len(history), 0, -1))
    return (weight * similarity).sum(axis=1) / weight.sum(axis=1)


def history_weights(similarity: np.ndarray, age: np.ndarray) -> np.ndarray:
    """How much each click counts in the affinity, by its similarity and age (1 = the latest)."""
    return np.exp(SHARPNESS * similarity) * DECAY ** (age - 1)


def _constant_for_rate(logit: np.ndarray) -> float:
    """The constant that makes the mean click probability CLICK_RATE, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        if (1 / (1 + np.exp(-(logit + middle)))).mean() < CLICK_RATE:
            low = middle
        else:
            high = middle
    return middle
