"""A cover for every item."""

from PIL import Image

from mmctr.data import demo_covers


def test_every_item_has_a_cover(tiny):
    covers = tiny.catalog.covers
    assert sorted(covers) == list(range(1, 301))
    with Image.open(covers[300]) as image:
        image.load()
        assert image.size == (demo_covers.COVER_SIZE, demo_covers.COVER_SIZE)
