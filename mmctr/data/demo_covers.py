"""The covers of the demo: a picture in the colours of its theme, with the pattern of its look."""

import colorsys
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mmctr.data.demo_clicks import LOOKS, THEMES, Items

COVER_SIZE = 128


def draw_covers(folder: Path, items: Items, cover_of: np.ndarray, rng: np.random.Generator) -> None:
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
