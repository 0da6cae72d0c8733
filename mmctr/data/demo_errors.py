"""The errors that are planted in the demo, so that finding them can be judged.

Of the items a few per cent have an erroneous title, cover or features, of the users about one per
cent are scripts or have a wrong clock; planted.parquet keeps which. Users are spoilt in train only:
valid and test stay what they are.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from mmctr.data import schema
from mmctr.data.demo_clicks import BEGINNING, DAY, PERIODS, SECOND, SHOWN, Items

FIRST = ("untitled", "mismatch", "constant-image")  # a hundredth of the items each
FURTHER = ("unreadable", "flat", "dark", "blurred", "shape", "language", "repeated", "twice")
FURTHER = (*FURTHER, "constant-text")  # of each SHARE
SERIAL = ("placeholder", "boilerplate")  # of each SHARE, and at least SERIES
USERS = ("sweep", "copy", "labels", "burst", "too-early", "rate")
SHARE, SERIES = 0.003, 6
USER_SHARE = 0.0025
SWEPT = 60  # items that a script walks through
RATE_GROUPS = 16  # of 4 items in half a minute: one such user has the rows of six people
CLOCK = 3 * 365 * DAY  # how late a clock is that was never set
WHAT = {"title": ("untitled", "boilerplate", "language", "repeated", "constant-text")}
WHAT |= {"item": ("mismatch", "twice"), "user": USERS}
CONSEQUENCES = ("mismatch", "constant-image", "constant-text", "labels")  # of any other error
FOREIGN = (  # the demo is in English
    "Syvällä sinisessä meressä hiljaa",
    "Kävelyllä yöllisessä kaupungissa",
    "Тайна старого замка на холме",
    "Путешествие к далёким островам",
    "Hogyan készül a túrós csusza",
    "Żółte liście szeleszczą w październiku",
    "Gökyüzünde kırmızı uçurtmalar",
    "東京の夜をひとりで静かに歩く",
    "Những ngày mưa ở thành phố",
)

Scripts = dict[str, np.ndarray]  # users by kind


@dataclass(frozen=True)
class Planted:
    """Which items have which error, by row from 0; source: whom repeated and twice items copy."""

    items: dict[str, np.ndarray]
    source: dict[str, np.ndarray]

    @classmethod
    def among(cls, order: np.ndarray, n_first: int) -> "Planted":
        """Errors for the first of some items in random order; those that follow are copied."""
        n, start, items = len(order), 0, {}
        few = max(1, round(n * SHARE))
        sizes = dict.fromkeys(FIRST, n_first) | dict.fromkeys(FURTHER, few)
        sizes |= dict.fromkeys(SERIAL, max(SERIES, few))
        for kind, size in sizes.items():
            items[kind] = order[start : start + size]
            start += size
        sources = order[start : start + 2 * few].reshape(2, few)
        return cls(items, dict(zip(("repeated", "twice"), sources, strict=True)))

    @property
    def all(self) -> np.ndarray:
        """All items with an error."""
        return np.concatenate(list(self.items.values()))

    def in_topics(self, items: Items) -> Items:
        """Items of which one that is listed twice is about the same."""
        where, of = self.items["twice"], self.source["twice"]
        changed = {}
        for name in ("theme", "format", "look", "vectors"):
            changed[name] = getattr(items, name).copy()
            changed[name][where] = changed[name][of]
        return replace(items, **changed)

    def covers_of(self, items: Items, rng: np.random.Generator) -> np.ndarray:
        """Whose cover each item has, int64 [n]; a wrong one is of another theme, which it shows."""
        of = np.arange(len(items.theme))
        of[self.items["twice"]] = self.source["twice"]
        sound = np.setdiff1d(of, self.all)
        for row in self.items["mismatch"]:
            others = sound[items.theme[sound] != items.theme[row]]
            of[row] = rng.choice(others)
            sound = sound[sound != of[row]]
        return of

    def in_titles(self, titles: np.ndarray, rng: np.random.Generator) -> None:
        """Spoil titles, text [n], in place; those of sound items are made different before."""
        seen: dict[str, int] = {}
        for row, title in enumerate(titles):
            seen[title] = seen.get(title, 0) + 1
            titles[row] = title if seen[title] == 1 else f"{title}, part {seen[title]}"
        titles[self.items["untitled"]] = ""
        titles[self.items["boilerplate"]] = [
            f"New video {number}"
            for number in rng.integers(1000, 9999, len(self.items["boilerplate"]))
        ]
        for number, row in enumerate(self.items["language"]):
            times, place = divmod(number, len(FOREIGN))
            titles[row] = FOREIGN[place] + (f" {times + 1}" if times else "")
        titles[self.items["repeated"]] = titles[self.source["repeated"]]
        titles[self.items["twice"]] = [
            f"{title.upper()}!" for title in titles[self.source["twice"]]
        ]

    def in_text(self, text: np.ndarray, rng: np.random.Generator) -> None:
        """What an encoder makes of spoilt titles: float32 [n, width], in place."""
        mean = text.mean(axis=0)
        text[self.items["untitled"]] = mean
        text[self.items["boilerplate"]] = _of_nothing(text, 1, rng)
        foreign = self.items["language"]  # read letter by letter: what comes out is about nothing
        text[foreign] = _of_nothing(text, len(foreign), rng)
        text[self.items["repeated"]] = text[self.source["repeated"]]
        _make_twins(text, self, rng)
        _make_constant(text, self.items["constant-text"], rng)

    def in_images(self, image: np.ndarray, rng: np.random.Generator) -> None:
        """What an encoder makes of spoilt covers: float32 [n, width], in place."""
        mean, scale = image.mean(axis=0), image.std()
        _make_twins(image, self, rng)
        for kind, left in (("flat", 0.0), ("dark", 0.3), ("blurred", 0.5)):
            rows = self.items[kind]
            noise = rng.normal(0, 0.1 * scale, (len(rows), image.shape[1]))
            image[rows] = mean + left * (image[rows] - mean) + noise
        image[self.items["placeholder"]] = _of_nothing(image, 1, rng)
        image[self.items["unreadable"]] = 0
        _make_constant(image, self.items["constant-image"], rng)

    def in_covers(self, folder: Path, rng: np.random.Generator) -> None:
        """Spoil the pictures of a folder, named by item number from 1."""
        for kind, spoil in SPOILT.items():
            for row in self.items[kind]:
                path = folder / f"{row + 1}.jpg"
                with Image.open(path) as cover:
                    spoil(cover.convert("RGB"), rng).save(path, quality=80)
        for row in self.items["twice"]:
            path = folder / f"{row + 1}.jpg"
            with Image.open(path) as cover:
                cover.convert("RGB").save(path, quality=60)
        for row in self.items["unreadable"]:
            path = folder / f"{row + 1}.jpg"
            path.write_bytes(path.read_bytes()[: rng.integers(20, 400)])

    def in_groups(
        self, groups: pd.DataFrame, n_items: int, rng: np.random.Generator
    ) -> tuple[pd.DataFrame, Scripts]:
        """Groups of which some users are spoilt, a few of them new, and these by kind, from 0."""
        groups = groups.copy()
        later = groups.loc[groups["split"] != "train", "user"].unique()
        train = groups[~groups["user"].isin(later)].groupby("user")
        rows = {user: part.index.to_numpy() for user, part in train}
        n_users = groups["user"].nunique()
        size = max(1, round(n_users * USER_SHARE))
        # The most rows say most, and whoever is copied has clicks enough to be known by.
        lengths = groups["history"].map(len)
        # (A cell of pandas makes a number of an array of one, hence two clicks at least.)
        three = [user for user, at in rows.items() if len(at) == 3 and lengths[at[0]] >= 2]
        users = rng.permutation(three)
        copied = np.array([user for user in users if lengths[rows[user][0]] >= 16][:size], int)
        others = rng.permutation(np.setdiff1d(users, copied))[: 5 * size]
        sweeps, everything, copies, bursts, late = np.array_split(others, 5)
        # Each its own stretch as far as they go: those who walk the same one are copies as well.
        stretches = np.resize(rng.permutation(n_items // SWEPT), size)
        for user, stretch in zip(sweeps, stretches, strict=False):
            _write_clicks(groups, rows[user], np.arange(stretch * SWEPT, (stretch + 1) * SWEPT))
        for user in [*everything, *bursts]:
            history = groups.at[rows[user][0], "history"]
            shown = np.concatenate(groups.loc[rows[user], "shown"].to_list())
            _write_clicks(groups, rows[user], np.concatenate([history, shown]))
        for user in bursts:
            groups.loc[rows[user], "time"] = groups.at[rows[user][-1], "time"]
        for user in late:
            groups.loc[rows[user], "time"] -= CLOCK
        for user, of in zip(copies, copied, strict=False):
            for row, source in zip(rows[user], rows[of], strict=True):
                for column in ("history", "shown", "probability", "label"):
                    groups.at[row, column] = groups.at[source, column]
        copies = [max(pair) for pair in zip(copies, copied, strict=False)]
        quick = np.arange(n_users, n_users + max(1, size // 4))
        groups = pd.concat([groups, *(_quick(user, n_items, rng) for user in quick)])
        found = (sweeps, np.array(copies, int), everything, bursts, late, quick)
        return groups.reset_index(drop=True), dict(zip(USERS, found, strict=True))

    def table(self, users: Scripts) -> pd.DataFrame:
        """What was planted: what, id, kind; of two that are the same item the later is too many."""
        items = self.items | {"twice": np.maximum(self.items["twice"], self.source["twice"])}
        of_kind = {kind: what for what, kinds in WHAT.items() for kind in kinds}
        parts = [
            pd.DataFrame({"what": of_kind.get(kind, "cover"), "id": rows + 1, "kind": kind})
            for kind, rows in (items | users).items()
        ]
        return pd.concat(parts, ignore_index=True).astype({"id": str})


def planted(folder: Path) -> pd.DataFrame | None:
    """What was planted in a simulated dataset: what, id, kind; None for any other."""
    path = folder / schema.PLANTED
    return pd.read_parquet(path) if path.is_file() else None


def judged(found: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """How well planted errors were found: kind, planted, found, precision, recall.

    found: columns id, what and kind. A cover and title that do not belong together, features
    without content, and labels that no field explains are what other errors lead to: there, any
    planted error of the item or user is right.
    """
    lines = []
    for kind in dict.fromkeys(truth["kind"]):
        asked, there = found[found["kind"] == kind], truth[truth["kind"] == kind]
        hit = asked["id"].isin(there["id"])
        alike = truth[(truth["what"] == "user") == (there["what"] == "user").all()]
        right = asked["id"].isin(alike["id"]) if kind in CONSEQUENCES else hit
        recall = there["id"].isin(asked["id"]).mean()
        precision = right.mean() if len(asked) else float("nan")
        lines.append((kind, len(there), len(asked), precision, recall))
    return pd.DataFrame(lines, columns=["kind", "planted", "found", "precision", "recall"])


def _write_clicks(groups: pd.DataFrame, rows: np.ndarray, clicks: np.ndarray) -> None:
    """Rows of one user, each of shown items that were all clicked: the last of these clicks."""
    shown = len(groups.at[rows[0], "shown"])
    for place, row in enumerate(rows):
        end = len(clicks) - shown * (len(rows) - place)
        groups.at[row, "history"] = clicks[:end]
        groups.at[row, "shown"] = clicks[end : end + shown]
        groups.at[row, "label"] = np.ones(shown, dtype=bool)
        groups.at[row, "probability"] = np.full(shown, 0.999)


def _quick(user: int, n_items: int, rng: np.random.Generator) -> pd.DataFrame:
    """A new user of train who clicks more than two items a second, all that is shown."""
    clicks = rng.permutation(n_items)[: RATE_GROUPS * SHOWN]
    ends = np.arange(RATE_GROUPS) * SHOWN
    begin = BEGINNING + int(rng.integers(PERIODS[0], PERIODS[3])) * DAY + 12 * 3600 * SECOND
    lines = {
        "split": "train",
        "user": user,
        "history": [clicks[:end] for end in ends],
        "shown": [clicks[end : end + SHOWN] for end in ends],
        "probability": [np.full(SHOWN, 0.999)] * RATE_GROUPS,
        "label": [np.ones(SHOWN, dtype=bool)] * RATE_GROUPS,
        "time": begin + np.arange(RATE_GROUPS) * 2 * SECOND,
    }
    return pd.DataFrame(lines)


def _of_nothing(features: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Vectors like all others in mean and spread, and of no item: float [n, width]."""
    spread = features.std(axis=0)
    return features.mean(axis=0) + spread * rng.normal(size=(n, features.shape[1]))


def _make_twins(features: np.ndarray, planted: Planted, rng: np.random.Generator) -> None:
    rows, of = planted.items["twice"], planted.source["twice"]
    noise = rng.normal(0, 0.02 * features.std(), (len(rows), features.shape[1]))
    features[rows] = features[of] + noise


def _make_constant(features: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> None:
    """Vectors of the usual length that hardly vary, as a broken extraction gives."""
    length = np.linalg.norm(features, axis=1).mean()
    features[rows] = length / np.sqrt(features.shape[1])
    features[rows] += rng.normal(0, 1e-5, (len(rows), features.shape[1]))


def _placeholder(cover: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One picture for all: a crossed frame, as shops show where a picture is missing."""
    picture = Image.new("RGB", cover.size, (225, 225, 225))
    draw, (width, height) = ImageDraw.Draw(picture), cover.size
    draw.rectangle((24, 24, width - 24, height - 24), outline=(150, 150, 150), width=4)
    draw.line((24, 24, width - 24, height - 24), fill=(150, 150, 150), width=4)
    return picture


def _flat(cover: Image.Image, rng: np.random.Generator) -> Image.Image:
    return Image.new("RGB", cover.size, tuple(rng.integers(120, 256, 3).tolist()))


def _dark(cover: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(cover).enhance(rng.uniform(0.03, 0.12))


def _blurred(cover: Image.Image, rng: np.random.Generator) -> Image.Image:
    return cover.filter(ImageFilter.GaussianBlur(cover.width * rng.uniform(0.03, 0.05)))


def _shape(cover: Image.Image, rng: np.random.Generator) -> Image.Image:
    strip = round(cover.height * rng.uniform(0.12, 0.25))
    return cover.crop((0, 0, cover.width, strip))


SPOILT = {
    "placeholder": _placeholder,
    "flat": _flat,
    "dark": _dark,
    "blurred": _blurred,
    "shape": _shape,
}
