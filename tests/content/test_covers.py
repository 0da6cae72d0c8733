"""Measures of covers against pictures whose measures are known; what was measured is kept."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.fft import dctn

from mmctr.content import covers
from mmctr.content.covers import SIDE, cover_facts, measure, perceptual_hash
from mmctr.data.catalog import Catalog

RNG = np.random.default_rng(0)


def noise(side=16, size=(200, 300)):
    """A picture of random patches."""
    pixels = RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def catalog_of(folder, n, **pictures):
    """A catalog of n items whose covers, by item, are pictures or bytes."""
    (folder / "item_images").mkdir(exist_ok=True)
    paths = {}
    for name, picture in pictures.items():
        item = int(name.removeprefix("item"))
        paths[item] = folder / "item_images" / f"{item}.png"
        if isinstance(picture, bytes):
            paths[item].write_bytes(picture)
        else:
            picture.save(paths[item])
    zero = np.zeros(n + 1, np.int8)
    tags, titles = np.zeros((n + 1, 1), np.int32), np.full(n + 1, "", object)
    return Catalog(tags, zero, zero, titles, paths)


@pytest.mark.parametrize("seed", range(3))
def test_the_hash_is_that_of_scipys_cosine_transform(seed):
    grey = np.random.default_rng(seed).random((SIDE, SIDE)).astype(np.float32)
    small = grey.reshape(32, 4, 32, 4).mean(axis=(1, 3))
    low = dctn(small.astype(float), norm=None)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    expected = int("".join("1" if bit else "0" for bit in bits), 2)
    assert perceptual_hash(grey) == expected


def test_the_same_picture_saved_anew_has_nearly_the_same_hash(tmp_path):
    picture = noise(8)
    picture.save(tmp_path / "a.jpg", quality=30)
    again = Image.open(tmp_path / "a.jpg").resize((150, 225))
    first, second, other = (measure(one)["hash"] for one in (picture, again, noise(8)))
    assert bin(first ^ second).count("1") <= 4
    assert bin(first ^ other).count("1") > 10


def test_what_flat_dark_and_blurred_covers_measure():
    picture = noise()
    sharp = measure(picture)
    assert sharp["flat"] < 0.2
    assert sharp["aspect"] == pytest.approx(2 / 3)
    flat = measure(Image.new("RGB", (50, 50), (200, 30, 90)))
    assert flat["flat"] == 1
    assert flat["colours"].reshape(-1, 3).tolist() == [[200, 30, 90]] * 64
    dark = measure(picture.point(lambda value: value // 20))
    assert dark["bright"] < 0.06 < sharp["bright"]
    assert dark["flat"] < 0.9, "what is dark is not empty for that"
    blurred = measure(picture.filter(ImageFilter.GaussianBlur(12)))
    assert blurred["sharp"] < sharp["sharp"] / 20


def test_every_item_has_a_line_and_every_failure_a_reason(tmp_path):
    pictures = {"item1": noise(), "item2": b"no picture", "item4": b""}
    facts = cover_facts(catalog_of(tmp_path, 4, **pictures), tmp_path)
    assert facts.reason.tolist() == ["no cover", "", "not a picture", "no cover", "empty file"]
    assert facts.read.tolist() == [False, True, False, False, False]
    assert np.isnan(facts.bright[[0, 2, 3, 4]]).all()
    assert facts.bright[1] > 0


def test_what_was_measured_is_not_measured_again(tmp_path, monkeypatch):
    """Also after an interruption: a shard that was finished stays."""
    monkeypatch.setattr(covers, "SHARD", 3)
    catalog = catalog_of(tmp_path, 7, **{f"item{n}": noise() for n in range(1, 8)})
    opened, real, limit = [], covers.open_cover, [5]

    def open_cover(path, enough):
        if len(opened) == limit[0]:
            raise KeyboardInterrupt
        opened.append(int(path.stem))
        return real(path, enough)

    monkeypatch.setattr(covers, "open_cover", open_cover)
    with pytest.raises(KeyboardInterrupt):
        cover_facts(catalog, tmp_path)
    opened.clear()
    limit[0] = None
    whole = cover_facts(catalog, tmp_path)
    assert 1 not in opened
    assert {6, 7} <= set(opened)
    opened.clear()
    again = cover_facts(catalog, tmp_path)
    assert opened == []
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(values, getattr(again, name))
    # A changed cover costs its own shard, and so does a damaged file.
    noise(5, (30, 40)).save(catalog.covers[4])
    cover_facts(catalog, tmp_path)
    assert sorted(opened) == [3, 4, 5]
    for path in (tmp_path / ".cache" / "covers").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    opened.clear()
    cover_facts(catalog, tmp_path)
    assert sorted(opened) == [1, 2, 3, 4, 5, 6, 7]
