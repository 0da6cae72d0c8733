"""The demo dataset: simulated items, pictures and clicks, written in the challenge's files.

It shows how the workbook works and proves nothing about real data. The generative model:

- An item has a theme, a format and a look. Each gives it a unit vector of LATENT numbers around
  the centre of that topic. The theme shows in both title and cover, the format in the title only,
  the look in the cover only.
- Titles are composed from words of theme and format; tags are some of those words. Covers take
  their colours from the theme and their pattern from the look.
- Text features (768 numbers) are a random linear image of theme and format vectors, image features
  (1024) of theme and look vectors. Both also hold NUISANCE directions, most of them stronger than
  any topic, plus noise and an offset; their row lengths differ (about 9 and 2.5), as those of
  real encoders do.
- Popularity follows Zipf's law. A user has one to three interests and a history drawn from them.
  Step by step the user is shown four items, two by interest and two by popularity, and clicks each
  with probability sigmoid(SLOPE * affinity + POPULARITY * log-popularity + constant). Affinity is
  the mean similarity of the item to the latest clicks, similar and recent clicks counting more.
  Clicked items join the history. Train takes 30 days, valid and test the five days after it each,
  at any hour; all items came in the year before.
- ERRONEOUS of the items have a blank title, the cover of another item, or a nearly constant image
  feature: a third each. A few more have errors of other kinds, and a few users are scripts
  (demo_errors says which); planted.parquet keeps all of them.

No strength was chosen by how the strategies rank. The click probabilities are kept in
truth.parquet; their AUC, the oracle AUC, is the best that any model can reach. The items' topics
are kept in topics.parquet.
"""

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from mmctr.data import demo_clicks, parquet, schema
from mmctr.data.demo_clicks import FORMATS, LATENT, LOOKS, MAX_HISTORY, SHOWN, THEMES, Items
from mmctr.data.demo_errors import Planted
from mmctr.errors import ConfigError, DataError
from mmctr.files import DEMO, atomic_folder, find

NUISANCE = 12  # directions of an encoder that say nothing about clicks
NOISE = 0.05  # per feature, beside topic vectors of length 1
TEXT_WIDTH, TEXT_LENGTH = 768, 9.0
IMAGE_WIDTH, IMAGE_LENGTH = 1024, 2.5
ERRONEOUS = 0.03
TOPICS = "topics.parquet"
COVER_SIZE = 128


@dataclass(frozen=True)
class Topics:
    """What simulated items are about; row 0 is padding.

    names: theme, format and look, text [n_items + 1, 3]. vectors: float32 [n_items + 1, 3, LATENT].
    """

    names: np.ndarray
    vectors: np.ndarray

    @classmethod
    def load(cls, folder: Path) -> "Topics | None":
        """The topics behind a simulated dataset; None for any other."""
        path = folder / TOPICS
        if not path.is_file():
            return None
        table = parquet.read_columns(path, [*schema.TOPIC_COLUMNS, "vectors"])
        names = np.stack([np.asarray(table[kind]) for kind in schema.TOPIC_COLUMNS], axis=1)
        vectors = parquet.matrix(table["vectors"], path, "vectors", np.float32)
        return cls(names, vectors.reshape(-1, names.shape[1], LATENT))


def find_data(data: Path | str, say: Callable[[str], None]) -> Path:
    """The folder of a dataset; the demo is simulated if it is asked for and not there yet."""
    folder = find(data)
    if Path(data) == DEMO and not folder.exists():
        say(f"There is no {DEMO} yet: simulating it takes about 15 seconds.")
        write_demo(folder)
    return folder


def write_demo(folder: Path, *, seed: int = 0, items: int = 3000, users: int = 8000) -> Path:
    """Simulate a dataset and write it; the folder appears whole or not at all.

    There are 10 train rows a user, and 1.25 valid and test rows; a few scripts have more. The test
    split keeps its labels, as simulated data may. Raises DataError if the folder exists,
    ConfigError for sizes too small.
    """
    if items < 200 or users < 64:
        raise ConfigError(
            f"Found {items} items and {users} users, expected at least 200 and 64: choose more."
        )
    if folder.exists():
        raise DataError(f"{folder} exists already: delete it or choose another folder.")
    with atomic_folder(folder) as temporary:
        _write(temporary, np.random.default_rng(seed), items, users)
    return folder


def _write(folder: Path, rng: np.random.Generator, n_items: int, n_users: int) -> None:
    items = demo_clicks.draw_items(rng, n_items)
    order = rng.permutation(n_items)
    planted = Planted.among(order, max(1, round(n_items * ERRONEOUS / 3)))
    # Errors take nothing from the generator of what they spoil.
    (chance,) = rng.spawn(1)
    items = planted.in_topics(items)
    cover_of = planted.covers_of(items, chance)
    words = [*THEMES, *FORMATS, *(word for nouns in THEMES.values() for word in nouns.split())]
    titles, tags = _titles_and_tags(rng, items, words)
    planted.in_titles(titles, chance)
    text = _features(rng, items.vectors[:, : 2 * LATENT], TEXT_WIDTH, TEXT_LENGTH)
    planted.in_text(text, chance)
    looks = np.delete(items.vectors, np.s_[LATENT : 2 * LATENT], axis=1)
    image = _features(rng, looks, IMAGE_WIDTH, IMAGE_LENGTH)[cover_of]
    planted.in_images(image, chance)
    levels = {name: _popularity_level(rng, items.popularity) for name in schema.LEVEL_COLUMNS}
    columns = {"item_title": titles, "item_tags": list(tags), **levels}
    came = chance.integers(1, 365, n_items)  # days before the log begins
    columns[schema.AVAILABLE] = demo_clicks.BEGINNING - came * demo_clicks.DAY
    _write_items(folder, columns, text, image, rng)
    names = {"tag": np.arange(1, len(words) + 1), "name": words}
    pq.write_table(pa.table(names), folder / schema.TAG_NAMES)
    _write_topics(folder / TOPICS, items)
    _draw_covers(folder / "item_images", items, cover_of, rng)
    planted.in_covers(folder / "item_images", chance)
    groups = demo_clicks.simulate_clicks(rng, items, n_users)
    groups, scripts = planted.in_groups(groups, n_items, chance)
    planted.table(scripts).to_parquet(folder / schema.PLANTED, index=False)
    _write_impressions(folder, groups, levels, rng)


def _titles_and_tags(
    rng: np.random.Generator, items: Items, vocabulary: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Titles, and five tags each: theme, format and words of the title; some go missing."""
    words = [nouns.split() for nouns in THEMES.values()]
    number = {word: position + 1 for position, word in enumerate(vocabulary)}
    titles = np.empty(len(items.theme), dtype=object)
    tags = np.zeros((len(titles), 5), dtype=np.int64)
    for row, (theme, form) in enumerate(zip(items.theme, items.format, strict=True)):
        first, second = rng.choice(words[theme], size=2, replace=False)
        phrase = rng.choice(list(FORMATS.values())[form])
        title = phrase.format(f"{first} {second}" if rng.random() < 0.5 else first)
        titles[row] = title[0].upper() + title[1:]
        candidates = [list(THEMES)[theme], list(FORMATS)[form], first, second]
        kept = [number[word] for word in candidates if rng.random() < 0.8]
        tags[row, : len(kept)] = kept
    return titles, tags


def _features(
    rng: np.random.Generator, topics: np.ndarray, width: int, length: float
) -> np.ndarray:
    """What an encoder makes of items: topics and nuisance in random directions, noise, offset."""
    directions, _ = np.linalg.qr(rng.normal(size=(width, topics.shape[1] + NUISANCE)))
    strengths = np.geomspace(1.0, 0.3, NUISANCE)
    nuisance = rng.normal(size=(len(topics), NUISANCE)) * strengths
    features = np.hstack([topics, nuisance]) @ directions.T
    features += rng.normal(0, NOISE, features.shape) + rng.normal(0, 0.1, width)
    return (features * (length / np.linalg.norm(features, axis=1).mean())).astype(np.float32)


def _popularity_level(rng: np.random.Generator, popularity: np.ndarray) -> np.ndarray:
    """Deciles 1..10 of a noisy view of the popularity."""
    noisy = np.log(popularity) + rng.normal(0, 0.5, len(popularity))
    return 1 + noisy.argsort().argsort() * 10 // len(popularity)


def _write_items(
    folder: Path,
    columns: dict[str, np.ndarray | list],
    text: np.ndarray,
    image: np.ndarray,
    rng: np.random.Generator,
) -> None:
    ids = np.arange(len(text) + 1)
    table = pd.DataFrame({"item_id": ids[1:], **columns})
    table = pa.Table.from_pandas(table, preserve_index=False)
    table = table.append_column(schema.TEXT_COLUMN, parquet.float_lists(text))
    table = table.append_column(schema.IMAGE_COLUMN, parquet.float_lists(image))
    pq.write_table(table, folder / "item_feature.parquet")
    # A stand-in for the organisers' embedding: a random projection, blind to the topics.
    projection = rng.normal(size=(TEXT_WIDTH + IMAGE_WIDTH, 128)) / math.sqrt(128)
    provided = np.hstack([text / TEXT_LENGTH, image / IMAGE_LENGTH]) @ projection
    nested = folder / schema.NESTED_FOLDER
    nested.mkdir()
    info = {"item_id": ids, "item_tags": [np.zeros(5, int), *columns["item_tags"]]}
    table = pa.Table.from_pandas(pd.DataFrame(info), preserve_index=False)
    padded = parquet.float_lists(np.vstack([np.zeros(128), provided]).astype(np.float32))
    pq.write_table(table.append_column("item_emb_d128", padded), nested / "item_info.parquet")


def _write_topics(path: Path, items: Items) -> None:
    """Row 0 is padding, as in item_info.parquet."""
    topics = zip((THEMES, FORMATS, LOOKS), (items.theme, items.format, items.look), strict=True)
    columns = {
        kind: ["", *np.array(list(names))[topic]]
        for kind, (names, topic) in zip(schema.TOPIC_COLUMNS, topics, strict=True)
    }
    vectors = np.vstack([np.zeros(items.vectors.shape[1]), items.vectors])
    table = pa.table({"item_id": np.arange(len(vectors)), **columns})
    pq.write_table(table.append_column("vectors", parquet.float_lists(vectors)), path)


def _write_impressions(
    folder: Path, groups: pd.DataFrame, levels: dict[str, np.ndarray], rng: np.random.Generator
) -> None:
    truth = []
    for split in schema.SPLITS:
        part = groups[groups["split"] == split].sample(frac=1, random_state=rng)
        history = np.zeros((len(part), MAX_HISTORY), dtype=np.int32)
        for row, clicks in enumerate(part["history"]):
            history[row, MAX_HISTORY - len(clicks) :] = clicks + 1
        rows = np.repeat(history, SHOWN, axis=0)
        offsets = np.arange(len(rows) + 1, dtype=np.int32) * MAX_HISTORY
        shown = np.concatenate(part["shown"].to_list())
        columns = {
            "user_id": np.repeat(part["user"].to_numpy() + 1, SHOWN),
            "item_seq": pa.ListArray.from_arrays(offsets, pa.array(rows.ravel())),
            "item_id": shown + 1,
            **{name: level[shown] for name, level in levels.items()},
            "label": np.concatenate(part["label"].to_list()).astype(np.int8),
            "time": np.repeat(part["time"].to_numpy(), SHOWN),
        }
        pq.write_table(pa.table(columns), folder / schema.NESTED_FOLDER / f"{split}.parquet")
        probability = np.concatenate(part["probability"].to_list())
        truth.append(
            pd.DataFrame({"split": split, "row": np.arange(len(shown)), "probability": probability})
        )
    pd.concat(truth).to_parquet(folder / "truth.parquet", index=False)


def _draw_covers(
    folder: Path, items: Items, cover_of: np.ndarray, rng: np.random.Generator
) -> None:
    """Write item_images/: one picture an item, that of the item which cover_of, int [n], names."""
    folder.mkdir()
    shapes = rng.random((len(items.theme), 24))
    for row, source in enumerate(cover_of):
        cover = _cover(int(items.theme[source]), int(items.look[source]), shapes[source])
        cover.save(folder / f"{row + 1}.jpg", quality=80)


def _cover(theme: int, look: int, numbers: np.ndarray) -> Image.Image:
    """A picture in the theme's colours with the look's pattern; numbers in 0..1 vary it."""
    hue = (theme + 0.5 * (numbers[0] - 0.5)) / len(THEMES)
    ground, dark, light = (
        tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue + shift, s, v))
        for shift, s, v in ((0, 0.55, 0.55 + 0.3 * numbers[1]), (0.04, 0.75, 0.35), (-0.05, 0.3, 1))
    )
    image = Image.new("RGB", (COVER_SIZE, COVER_SIZE), ground)
    draw, size = ImageDraw.Draw(image), COVER_SIZE
    points = numbers[4:].reshape(-1, 2) * size
    step = 14 + 10 * numbers[2]
    match LOOKS[look]:
        case "circles":
            for (x, y), color in zip(points[:7], (dark, light) * 4, strict=False):
                draw.circle((x, y), 8 + 22 * numbers[3] + x / 10, fill=color)
        case "stripes":
            for start in np.arange(-size, size, step):
                ends = (start, 0, start + size * numbers[3], size)
                draw.line(ends, fill=light if start // step % 2 else dark, width=round(step / 2))
        case "triangles":
            for (x, y), color in zip(points[:7], (light, dark) * 4, strict=False):
                draw.polygon((x, y - 26, x - 24, y + 18, x + 24, y + 18), fill=color)
        case "waves":
            for y in np.arange(0, size + step, step):
                line = [
                    (x, y + step * 0.4 * math.sin(x / (6 + 6 * numbers[3]))) for x in range(size)
                ]
                draw.line(line, fill=light if y // step % 2 else dark, width=5)
        case "grid":
            for place in np.arange(step * numbers[3], size, step):
                draw.line((place, 0, place, size), fill=dark, width=3)
                draw.line((0, place, size, place), fill=light, width=3)
        case "rays":
            x, y = size * (0.2 + 0.6 * numbers[2]), size * (0.4 + 0.6 * numbers[3])
            for angle in np.arange(0, 2 * math.pi, 0.32):
                end = (x + 200 * math.cos(angle), y + 200 * math.sin(angle))
                draw.line((x, y, *end), fill=light, width=5)
            draw.circle((x, y), 17, fill=dark)
        case "dots":
            for x in np.arange(step * numbers[3], size, step):
                for y in np.arange(step * numbers[2], size, step):
                    draw.circle((x, y), 4.5, fill=light if (x + y) // step % 2 else dark)
        case "hills":
            for (x, _), color, top in zip(points, (light, dark, light), (50, 70, 95), strict=False):
                draw.ellipse((x - 75, top, x + 75, top + 150), fill=color)
            draw.circle((size * numbers[2], 26), 11, fill=light)
    return image
