"""Erroneous entries: how many planted ones are found in real data, and what finding costs.

Usage: python -m benchmarks.errors find DATASET [DATASET ...] --out FOLDER
       python -m benchmarks.errors scale --items 100000 --out FOLDER

A DATASET is a folder of mmctr data import, or the demo. `find` plants errors into a copy and looks
for them with the thresholds as they are: recall of each kind, and what is found beside them; the 50
unplanted items with the highest scores, found or not, are drawn on a contact sheet. `scale` times a
large catalog. What leaving out is worth is measured by benchmarks.excluding.

What plants shares no code with what finds, nor with the demo's own errors.
"""

import argparse
import resource
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mmctr.content.covers import CoverFacts, cover_facts
from mmctr.content.errors import KINDS, find_errors
from mmctr.content.evidence import Evidence
from mmctr.data import parquet, schema
from mmctr.data.catalog import Catalog
from mmctr.data.click_errors import ClickLog
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.errors import MMCTRError

TRUTH = "benchmark_truth.parquet"
SHEET = 50  # findings on a contact sheet
SCRIPTS = 6  # of each kind
READ = 1000  # covers that reading is timed on
# Real titles of films and books, none of them in English.
FOREIGN = (
    "Mies vailla menneisyyttä", "Täällä Pohjantähden alla", "Kummeli kultakuume", "Pahat pojat",
    "Popiół i diament", "Krótki film o miłości", "Człowiek z żelaza", "Jak rozpętałem drugą wojnę",
    "Ирония судьбы, или С лёгким паром", "Бриллиантовая рука", "Летят журавли", "Иди и смотри",
    "七人の侍", "千と千尋の神隠し", "東京物語", "霸王别姬", "花样年华", "살인의 추억",
    "Selvi boylum al yazmalım", "Hababam sınıfı sınıfta kaldı", "Bir zamanlar Anadoluda",
    "Szegénylegények", "Valahol Európában", "Macskafogó", "Ostře sledované vlaky",
    "Das Leben der Anderen", "Der Himmel über Berlin", "Mujeres al borde de un ataque de nervios",
    "Le charme discret de la bourgeoisie", "Ladri di biciclette",
)  # fmt: skip


def plant(folder: Path, out: Path, share: float, seed: int) -> pd.DataFrame:
    """Copy a dataset with errors in a share of its items and a few scripts; what was planted.

    Columns: id (the user's own), what, kind. The share is divided evenly among the kinds that the
    data can have.
    """
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(
        folder, out, ignore=shutil.ignore_patterns(".*", "errors.parquet", "truth.parquet")
    )
    dataset, rng = Dataset.load(out), np.random.default_rng(seed)
    catalog = dataset.catalog
    kinds = ["emptied", "foreign", "random keys", "file name"]
    if catalog.covers:
        kinds += [
            "other cover",
            "black",
            "blurred",
            "banner",
            "cut off",
            "no image",
            "listed again",
        ]
    elif catalog.image_features is None:
        kinds += ["other title"]
    shuffled = 1 + rng.permutation(catalog.n_items)
    order = np.array([item for item in shuffled if _is_whole(catalog, item)])
    size = round(share * catalog.n_items / len(kinds))
    chosen = {kind: order[n * size : (n + 1) * size] for n, kind in enumerate(kinds)}
    sources = order[len(kinds) * size :][:size]  # of what is listed again
    _spoil_items(out, dataset, chosen, sources, rng)
    if "listed again" in chosen:  # of two that are the same the later is too many
        chosen["listed again"] = np.maximum(chosen["listed again"], sources)
    lines = [(catalog.ids[item], kind) for kind, items in chosen.items() for item in items]
    truth = pd.DataFrame(lines, columns=["id", "kind"]).assign(what="item")
    if share:
        scripts = _add_scripts(out, dataset, rng)
        truth = pd.concat([truth, scripts], ignore_index=True)
    truth.to_parquet(out / TRUTH)
    return truth


def _spoil_items(
    out: Path, dataset: Dataset, chosen: dict, sources: np.ndarray, rng: np.random.Generator
) -> None:
    catalog = dataset.catalog
    titles = catalog.titles.copy()
    text, image = (None if one is None else one.copy() for one in _features(dataset))
    for kind, items in chosen.items():
        if not len(items):
            continue
        if kind in ("emptied", "foreign", "random keys", "file name") and text is not None:
            # What an encoder makes of words that say nothing of the item.
            anywhere = rng.normal(size=text.shape[1]) if kind in ("emptied", "file name") else None
            spread = text[1:].std(axis=0)
            noise = rng.normal(size=(len(items), text.shape[1])) if anywhere is None else anywhere
            text[items] = text[1:].mean(axis=0) + spread * noise
        if kind == "emptied":
            titles[items] = rng.choice(["", " ", "-", "N/A"], len(items))
        elif kind == "foreign":
            titles[items] = rng.choice(FOREIGN, len(items))
        elif kind == "random keys":
            keys = [*"qwertzuiopasdfghjklyxcvbnm "]
            titles[items] = ["".join(rng.choice(keys, 18)) for _ in items]
        elif kind == "file name":
            titles[items] = [f"IMG_{number}.JPG" for number in rng.integers(1000, 9999, len(items))]
        elif kind == "other title":
            titles[items] = catalog.titles[np.roll(items, 1)]
            text[items] = _features(dataset)[0][np.roll(items, 1)]
        elif kind == "other cover":
            moved = np.roll(items, 1)
            contents = [catalog.covers[item].read_bytes() for item in moved]
            for item, content in zip(items, contents, strict=True):
                _replace(out, catalog, item, content)
            image[items] = _features(dataset)[1][moved]
        elif kind == "listed again":
            endings = rng.choice(["", "!", " ."], len(items))
            titles[items] = catalog.titles[sources] + endings.astype(object)
            for one, own in zip((text, image), _features(dataset), strict=True):
                if one is not None:
                    one[items] = own[sources]
            for item, source in zip(items, sources, strict=True):
                _replace(out, catalog, item, _saved_anew(catalog.covers[source]))
        else:
            for item in items:
                _replace(out, catalog, item, SPOIL[kind](catalog.covers[item]))
            if image is not None:
                image[items] = _seen(kind, image, items, rng)
    path = schema.find_file(out, "item_feature.parquet")
    table = pq.read_table(path)
    rows = table["item_id"].to_numpy()
    new = {"item_title": pa.array(titles[rows].astype(str))}
    for column, values in ((schema.TEXT_COLUMN, text), (schema.IMAGE_COLUMN, image)):
        if values is not None:
            new[column] = parquet.float_lists(values[rows].astype(np.float32))
    for column, values in new.items():
        table = table.set_column(table.column_names.index(column), column, values)
    pq.write_table(table, path)


def _features(dataset: Dataset) -> tuple[np.ndarray | None, np.ndarray | None]:
    return dataset.catalog.text_features, dataset.catalog.image_features


def _seen(kind: str, image: np.ndarray, items: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What stands for an encoder's view of spoilt covers: nothing, one vector, or half of it."""
    if kind == "cut off":
        return np.zeros_like(image[items])
    mean, spread = image[1:].mean(axis=0), image[1:].std(axis=0)
    if kind in ("black", "no image"):
        return np.tile(mean + spread * rng.normal(size=image.shape[1]), (len(items), 1))
    noise = 0.5 * spread * rng.normal(size=(len(items), image.shape[1]))
    return mean + 0.5 * (image[items] - mean) + noise


def _replace(out: Path, catalog: Catalog, item: int, made: Image.Image | bytes) -> None:
    path = out / "item_images" / catalog.covers[item].name
    path.unlink()
    if isinstance(made, bytes):
        path.write_bytes(made)
    else:
        made.save(path.with_suffix(".jpg"), quality=85)


def _is_whole(catalog: Catalog, item: int) -> bool:
    """Whether the cover of an item can be spoilt: it can be read, or there is none."""
    if item not in catalog.covers:
        return not catalog.covers
    try:
        return bool(_pixels(catalog.covers[item]).size)
    except OSError:
        return False


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.float32)


def _black(path: Path) -> Image.Image:
    return Image.fromarray((_pixels(path) * 0.04).astype(np.uint8))


def _smeared(path: Path) -> Image.Image:
    """As a picture of 20 pixels that was blown up."""
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize((16, 24), Image.Resampling.BILINEAR)
        return small.resize(picture.size, Image.Resampling.BICUBIC)


def _banner(path: Path) -> Image.Image:
    pixels = _pixels(path).astype(np.uint8)
    return Image.fromarray(pixels[len(pixels) // 2 :][: max(8, len(pixels) // 10)])


def _cut_off(path: Path) -> bytes:
    return path.read_bytes()[:300]


def _no_image(path: Path) -> Image.Image:
    pixels = np.full((300, 200, 3), 238, np.uint8)
    pixels[140:160, 40:160] = 120
    pixels[90:210, 95:105] = 120
    return Image.fromarray(pixels)


def _saved_anew(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        width, height = picture.size
        return picture.convert("RGB").resize((round(0.9 * width), round(0.9 * height)))


SPOIL = {
    "black": _black,
    "blurred": _smeared,
    "banner": _banner,
    "cut off": _cut_off,
    "no image": _no_image,
}
# What finds each planted kind, any of them.
FINDS = {
    "emptied": ("untitled",),
    "foreign": ("language",),
    "random keys": ("language",),
    "file name": ("boilerplate",),
    "other title": ("mismatch", "repeated"),
    "other cover": ("mismatch",),
    "black": ("dark", "flat"),
    "blurred": ("blurred",),
    "banner": ("shape",),
    "cut off": ("unreadable",),
    "no image": ("placeholder", "flat"),
    "listed again": ("twice", "repeated"),
    "walks the catalog": ("sweep",),
    "one a second": ("rate", "burst", "sweep"),
    "all at once": ("burst", "rate"),
    "copies a user": ("copy",),
}


def _add_scripts(out: Path, dataset: Dataset, rng: np.random.Generator) -> pd.DataFrame:
    """Append rows of scripts to train: what was planted. Three negatives for each click."""
    path = schema.find_file(out, "train.parquet")
    table, n_items = pq.read_table(path), dataset.catalog.n_items
    first = max(rows.user.max() for rows in dataset.splits.values()) + 1
    timed = "time" in table.column_names
    longest = np.argsort(-dataset.train.history_length)
    copied = dataset.train.user[longest]
    _, once = np.unique(copied, return_index=True)
    copied = longest[np.sort(once)][20 : 20 + SCRIPTS]
    plans = []
    for number in range(SCRIPTS):
        start = rng.integers(1, n_items - 80)
        plans.append(("walks the catalog", np.arange(start, start + 80), 30))
        plans.append(("copies a user", dataset.train.history(copied[number]), 600))
        if timed:
            plans.append(("one a second", 1 + rng.permutation(n_items)[:150], 0.9))
            plans.append(("all at once", 1 + rng.permutation(n_items)[:40], 0.01))
    columns = {name: [] for name in table.column_names}
    lines, own = [], []
    train = dataset.train
    for user, (kind, clicks, seconds) in enumerate(plans, start=int(first)):
        begun = int(np.quantile(train.time, rng.uniform(0.2, 0.8))) if timed else 0
        for place, click in enumerate(clicks):
            shown = [click, *rng.integers(1, n_items + 1, 3)]
            for label, item in zip((1, 0, 0, 0), shown, strict=True):
                values = {"user_id": user, "item_id": int(item), "label": label}
                values["item_seq"] = clicks[max(0, place - 100) : place].tolist() or [0]
                values["time"] = begun + int(place * seconds * 1e9)
                values |= dict.fromkeys(schema.LEVEL_COLUMNS, 0)
                for name in columns:
                    columns[name].append(values[name])
        lines.append((f"script-{user}" if (out / schema.USER_IDS).exists() else str(user), kind))
        own.append((user, f"script-{user}"))
    rows = pa.table({f.name: pa.array(columns[f.name], f.type) for f in table.schema})
    joined = pa.concat_tables([table.replace_schema_metadata(None), rows])
    pq.write_table(joined.replace_schema_metadata(table.schema.metadata), path)
    if (out / schema.USER_IDS).exists():
        known = pd.read_parquet(out / schema.USER_IDS)
        more = pd.DataFrame(own, columns=["user_id", "original_id"])
        pd.concat([known, more]).to_parquet(out / schema.USER_IDS, index=False)
    return pd.DataFrame(lines, columns=["id", "kind"]).assign(what="user")


def find(folder: Path, out: Path) -> None:
    """Recall of planted errors, what is found in the data as they are, and a contact sheet."""
    work = out / f"{folder.name}-planted"
    truth = plant(folder, work, 0.1, seed=11)
    dataset = Dataset.load(work)
    found, table = find_errors(dataset)
    lines = []
    for kind in dict.fromkeys(truth["kind"]):
        there = truth.loc[truth["kind"] == kind, "id"]
        asked = found[found["kind"].isin(FINDS[kind])]
        any_kind = there.isin(found.loc[found["what"] != "user", "id"])
        any_kind |= there.isin(found.loc[found["what"] == "user", "id"])
        recall = there.isin(asked["id"]).mean()
        lines.append((kind, len(there), ", ".join(FINDS[kind]), recall, any_kind.mean()))
    columns = ["planted", "number", "should be found as", "recall", "found as anything"]
    print(f"{folder.name}: {dataset.catalog.n_items:,} items, {len(truth):,} planted entries")
    print(pd.DataFrame(lines, columns=columns).to_string(index=False, float_format="%.2f"))
    others = found[~found["id"].isin(truth["id"])]
    n_users = len(np.unique(dataset.train.user))
    alarms = []
    for line in table.itertuples(index=False):
        count = (others["kind"] == line.kind).sum()
        of = n_users if line.what == "user" else dataset.catalog.n_items
        told = "not told" if pd.isna(line.count) else f"{count} ({count / of:.2%})"
        alarms.append((line.kind, line.count, told))
    columns = ["kind", "found", "of them not planted"]
    print(pd.DataFrame(alarms, columns=columns).to_string(index=False, na_rep="-"))
    _contact_sheet(dataset, set(truth["id"]), out / f"{folder.name}-not-planted.png")


def _contact_sheet(dataset: Dataset, planted: set[str], path: Path) -> None:
    """The SHEET unplanted items that score highest, found or not, by multiples of thresholds."""
    evidence, parts, catalog = Evidence(dataset), [], dataset.catalog
    for kind in KINDS:
        if kind.what != "user" and not isinstance(score := kind.score(evidence), str):
            times = np.array(score, float) / kind.threshold
            columns = {"item": np.arange(len(times)), "kind": kind.name, "times": times}
            parts.append(pd.DataFrame(columns))
    table = pd.concat(parts).dropna()
    table = table[(table["item"] > 0) & ~np.isin(catalog.ids[table["item"]], list(planted))]
    worst = table.sort_values("times", ascending=False, kind="stable").drop_duplicates("item")
    worst = worst.head(SHEET)
    sheet = Image.new("RGB", (10 * 110, 5 * 160), "white")
    for place, line in enumerate(worst.itertuples(index=False)):
        item = int(line.item)
        name = f"{catalog.ids[item]} {catalog.titles[item]}"
        print(f"{place + 1:>3} {line.kind:<12} {line.times:6.2f} {name}")
        if item in catalog.covers and _is_whole(catalog, item):
            tile = Image.fromarray(_pixels(catalog.covers[item]).astype(np.uint8))
            sheet.paste(tile.resize((100, 150)), (place % 10 * 110, place // 10 * 160))
    if catalog.covers:
        sheet.save(path)


def scale(n_items: int, out: Path) -> None:
    """Seconds of each step for a catalog of so many items with covers, and the memory held.

    Measures of covers are drawn, and their reading is timed on READ of them. Seconds are those of
    the processor, of all cores together, so that other work on the machine does not count.
    """
    folder = out / "covers"
    shutil.rmtree(folder, ignore_errors=True)
    items, users = evidence_of(n_items)
    catalog = items.dataset.catalog
    paths = _photographs(folder, np.random.default_rng(0))
    some = replace(catalog, tags=catalog.tags[: READ + 1], covers=paths)
    written = time.process_time()
    cover_facts(some, folder)
    each = (time.process_time() - written) / READ
    print(f"covers: {1000 * each:.1f} ms each to read and measure, {READ:,} of them")
    begun = time.process_time()
    for kind in KINDS:
        before = time.process_time()
        score = kind.score(users if kind.what == "user" else items)
        told = score if isinstance(score, str) else f"{(score >= kind.threshold).sum():,} found"
        print(f"{kind.name:<15} {time.process_time() - before:8.1f} s  {told}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    features = 4 * n_items * (768 + 1024) / 2**20
    print(f"{n_items:,} items: {time.process_time() - begun:.0f} s beyond reading covers, at most")
    print(f"{peak:,.0f} MB, of which features are {features:,.0f} MB")


def evidence_of(n_items: int) -> tuple[Evidence, ClickLog]:
    """A catalog of so many items and its users, to be looked at; measures of covers are drawn."""
    rng = np.random.default_rng(0)
    dataset = _large(n_items, rng)
    items = Evidence(dataset)
    vars(items)["covers"] = _drawn(n_items, rng)
    return items, ClickLog(dataset)


def _photographs(folder: Path, rng: np.random.Generator) -> dict[int, Path]:
    """READ covers of 300 x 400 pixels with detail, by item."""
    folder.mkdir(parents=True)
    for item in range(1, READ + 1):
        coarse = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((300, 400), Image.Resampling.BICUBIC)
        picture.save(folder / f"{item}.jpg", quality=85)
    return {item: folder / f"{item}.jpg" for item in range(1, READ + 1)}


def _drawn(n_items: int, rng: np.random.Generator) -> CoverFacts:
    """Measures of covers of which a hundredth are the same and a hundredth are flat."""
    n = n_items + 1
    hashes = rng.integers(0, 2**63, n, dtype=np.uint64)
    colours = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    same, flat = rng.permutation(n)[: n // 50].reshape(2, -1)
    hashes[same], colours[same] = 7, 99
    share = rng.uniform(0.1, 0.6, n).astype(np.float32)
    share[flat], colours[flat], hashes[flat] = 1, rng.integers(0, 256, (len(flat), 1, 1, 3)), 0
    reason = np.full(n, "", dtype="<U32")
    reason[0] = "no cover"
    aspect, half = np.full(n, 0.7, np.float32), np.full(n, 0.5, np.float32)
    return CoverFacts(reason, aspect, share, half, half, hashes, colours)


def _large(n_items: int, rng: np.random.Generator) -> Dataset:
    """Words for titles, features of text and image, and five rows for each of as many users."""
    n, size = n_items + 1, 5 * n_items
    words = np.array([f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"])
    titles = np.array([" ".join(one) for one in rng.choice(words, (n, 4))], dtype=object)
    titles[0] = ""
    hidden, media = rng.normal(size=(n, 32)).astype(np.float32), []
    for width in (768, 1024):
        features = hidden @ rng.normal(size=(32, width)).astype(np.float32)
        features += 3 * rng.standard_normal(features.shape, dtype=np.float32)
        features[0] = 0
        media.append(features)
    level = rng.integers(1, 11, n).astype(np.int8)
    catalog = Catalog(np.ones((n, 1), np.int32), level, level, titles, {}, *media)
    starts = 10 * np.arange(size)
    rows = Impressions(
        np.sort(rng.integers(1, n, size)),
        rng.integers(1, n, size).astype(np.int32),
        (rng.random(size) < 0.25).astype(np.float32),
        *(starts, starts + 10),
        rng.integers(1, n, 10 * size).astype(np.int32),
        time=np.sort(rng.integers(0, 10**16, size)) + 1,
    )
    return Dataset(Path(), catalog, {"train": rows, "valid": rows.select(np.arange(1000))})


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["find", "scale"])
    parser.add_argument("datasets", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps the results")
    parser.add_argument("--items", type=int, default=100_000, help="of scale")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        if arguments.what == "scale":
            scale(arguments.items, arguments.out)
        for folder in arguments.datasets:
            find(folder, arguments.out)
    except MMCTRError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
