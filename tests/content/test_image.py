"""Covers to vectors: what open_clip itself computes, whatever the file."""

import io
import json
import shutil
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mmctr.content.image import ImageEncoder, open_cover, picture
from mmctr.errors import ModelNotFoundError

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def encoder(clip):
    return ImageEncoder(str(clip), None, CPU)


@pytest.fixture(scope="session")
def photo():
    """A picture that is no square and has no two equal rows."""
    waves = np.add.outer(np.arange(90), 3 * np.arange(130))
    return Image.fromarray(np.stack([waves % 256, waves % 101, waves % 53], -1).astype(np.uint8))


def encode(encoder, *shards, batch_size=4, workers=0):
    return list(encoder.encode_shards(list(shards), batch_size, lambda _: None, workers))


def direct(clip, image):
    """One picture through open_clip, as its documentation shows."""
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    with torch.no_grad():
        return model.eval().encode_image(preprocess(image).unsqueeze(0))[0].numpy()


def png(width, height):
    """A valid PNG of one bit a pixel; black, so that it is small however large it claims to be."""

    def chunk(name, data):
        check = zlib.crc32(name + data).to_bytes(4)
        return len(data).to_bytes(4) + name + data + check

    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height)
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([1, 0, 0, 0, 0])
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def readable(photo):
    """Files that must be read, by name, each with the RGB picture that it shows."""
    other = photo.rotate(180)
    palette, large = photo.quantize(64), Image.new("RGB", (8000, 8000), (200, 30, 60))
    return {
        "plain.png": (saved(photo, "PNG"), photo),
        "wrong.jpg": (saved(photo, "WEBP", lossless=True), photo),
        "cmyk.jpg": (saved(photo.convert("CMYK"), "JPEG"), None),
        "palette.png": (saved(palette, "PNG"), palette.convert("RGB")),
        "clear.png": (
            saved(palette, "PNG", transparency=bytes(64)),
            Image.new("RGB", photo.size, "white"),
        ),
        "gray.png": (saved(photo.convert("L"), "PNG"), photo.convert("L").convert("RGB")),
        "animated.webp": (
            saved(photo, "WEBP", save_all=True, append_images=[other], lossless=True),
            photo,
        ),
        "animated.jpg": (saved(palette, "GIF", save_all=True, append_images=[other]), None),
        "dot.png": (
            saved(Image.new("RGB", (1, 1), "teal"), "PNG"),
            Image.new("RGB", (1, 1), "teal"),
        ),
        "large.jpg": (saved(large, "JPEG"), None),
    }


def unreadable(photo):
    """Files that cannot be read, by name, each with the reason."""
    jpeg, image = saved(photo, "JPEG"), saved(photo, "PNG")
    return {
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated or damaged"),
        "truncated.png": (image[: len(image) // 2], "truncated or damaged"),
        "header.webp": (saved(photo, "WEBP")[:20], "truncated or damaged"),
        "empty.jpg": (b"", "empty file"),
        "page.png": (b"<html>404 not found</html>", "not a picture"),
        "program.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        "bomb.png": (png(10_001, 10_000), "decompression bomb"),
        "huge.png": (png(60_000, 60_000)[:200], "decompression bomb"),
        "line.png": (png(20_000, 1), "too narrow"),
    }


def write(folder, files):
    paths = []
    for name, (content, _) in files.items():
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    return paths


def test_equals_open_clip_one_at_a_time_for_every_kind_of_picture(encoder, clip, photo, tmp_path):
    files = readable(photo)
    paths = write(tmp_path, files)
    (features, reasons, seconds), *_ = encode(encoder, paths, workers=2)
    assert reasons == [None] * len(paths)
    assert features.dtype == np.float32 and features.shape == (len(paths), 24)
    for path, vector, (_, image) in zip(paths, features, files.values(), strict=True):
        shown = image or Image.open(path).convert("RGB")
        np.testing.assert_allclose(vector, direct(clip, shown), atol=1e-5, err_msg=path.name)
    assert set(seconds) == {"decode", "wait", "encode"} and seconds["decode"] > 0
    assert np.ptp(features, axis=0).max() > 0.1  # pictures are told apart


def test_what_cannot_be_read_is_zero_with_a_reason(encoder, photo, tmp_path):
    files = unreadable(photo)
    good = write(tmp_path, {"good.png": (saved(photo, "PNG"), None)})
    paths = [*write(tmp_path, files), None, tmp_path / "gone.jpg"]
    (features, reasons, _), (last, none, _) = encode(encoder, paths + good, good, workers=1)
    expected = [reason for _, reason in files.values()]
    assert reasons == [*expected, "no cover", "no cover", None]
    assert not features[:-1].any() and none == [None]
    np.testing.assert_allclose(features[-1], last[0], atol=1e-5)


def test_a_light_encoder_leaves_cores_to_the_workers_and_takes_them_back(
    encoder, photo, tmp_path, monkeypatch
):
    cover = tmp_path / "cover.png"
    photo.save(cover)
    seen, real = [], encoder._encode
    monkeypatch.setattr(
        encoder, "_encode", lambda pixels: seen.append(torch.get_num_threads()) or real(pixels)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for workers in (0, 1, 2, 5):
            encode(encoder, [cover], workers=workers)
        monkeypatch.setattr(encoder, "light", False)
        encode(encoder, [cover], workers=2)
        monkeypatch.setattr(encoder, "light", True)
        unfinished = encoder.encode_shards([[cover], [cover]], 1, lambda _: None, 1)
        next(unfinished)
        unfinished.close()
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert seen[:5] == [3, 2, 1, 1, 3]
    assert after == 3


def test_an_animation_shows_its_first_frame(photo, tmp_path):
    frames = [Image.new("RGB", (9, 9), color) for color in ("red", "blue")]
    content = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    (path,) = write(tmp_path, {"animated.png": (content, None)})
    assert open_cover(path).getpixel((4, 4)) == (255, 0, 0)


# Where row r and column c of a stored picture are in the picture as it is meant, [height, width],
# by the table of the EXIF standard: which edge its first row and its first column are.
TURNED = {
    1: lambda r, c, height, width: (r, c),
    2: lambda r, c, height, width: (r, width - 1 - c),
    3: lambda r, c, height, width: (height - 1 - r, width - 1 - c),
    4: lambda r, c, height, width: (height - 1 - r, c),
    5: lambda r, c, height, width: (c, r),
    6: lambda r, c, height, width: (c, width - 1 - r),
    7: lambda r, c, height, width: (height - 1 - c, width - 1 - r),
    8: lambda r, c, height, width: (height - 1 - c, r),
}


def turned(pixels, orientation):
    """What a camera stores that was held so, and the EXIF block that says it."""
    height, width = pixels.shape[:2]
    shape = (height, width) if orientation < 5 else (width, height)
    rows, columns = TURNED[orientation](*np.indices(shape), height, width)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.fromarray(pixels[rows, columns]), exif


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", TURNED)
def test_a_picture_stands_as_its_exif_says(tmp_path, form, orientation):
    # Colours that are even over the blocks of JPEG, so that turning changes nothing else.
    colours = np.random.default_rng(1).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    pixels = colours.repeat(16, 0).repeat(16, 1)
    image, exif = turned(pixels, orientation)
    lossless = {"JPEG": {"subsampling": 0, "quality": 100}, "WEBP": {"lossless": True}}
    (tmp_path / "cover").write_bytes(saved(image, form, exif=exif, **lossless.get(form, {})))
    shown = np.asarray(open_cover(tmp_path / "cover"))
    np.testing.assert_allclose(shown.astype(int), pixels, atol=3 if form == "JPEG" else 0)


@pytest.mark.parametrize(
    "entry",
    [
        b"garbage",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0",  # orientation 99
        b"II*\0\x08\0\0\0\xff\xff\x12\x01\x02\0\x01\0\0\0\x06\0\0\0",  # a text
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\xff\xff\xff\xff",  # out of the file
        b"MM",
    ],
)
def test_damaged_exif_leaves_a_picture_as_it_is(tmp_path, photo, entry):
    (tmp_path / "cover").write_bytes(saved(photo, "PNG", exif=b"Exif\0\0" + entry))
    assert np.array_equal(np.asarray(open_cover(tmp_path / "cover")), np.asarray(photo))


RAMP = np.add.outer(np.arange(0, 65536, 8192), np.arange(0, 8192, 100)).clip(0, 65535)


@pytest.mark.parametrize(
    ("form", "kind", "white"),
    [
        ("PNG", "uint16", 65535),
        ("TIFF", "<u2", 65535),
        ("TIFF", ">u2", 65535),  # I;16B
        ("TIFF", "int32", 65535),  # I
        ("PPM", "int32", 65535),  # I
        ("TIFF", "float32", 65535),  # F
        ("TIFF", "float32", 255),
        ("TIFF", "float32", 1),
    ],
)
def test_grey_of_sixteen_bits_is_neither_cut_off_nor_stretched(tmp_path, form, kind, white):
    for share in (1, 0.4):  # a dark picture stays dark
        values = (RAMP * share * (white / 65535)).astype(kind)
        (tmp_path / "cover").write_bytes(saved(Image.fromarray(values), form))
        shown = np.asarray(open_cover(tmp_path / "cover")).astype(float)
        if white > 1 or share == 1:
            by_hand = values.astype(float)[..., None] * 255 / white
            np.testing.assert_allclose(shown, by_hand.repeat(3, -1), atol=0.51)


def test_numbers_that_are_no_grey_do_not_spoil_a_picture(tmp_path):
    values = np.array([[0.0, 0.5, 1.0], [np.nan, -3.0, 0.25]], np.float32)
    (tmp_path / "cover").write_bytes(saved(Image.fromarray(values), "TIFF"))
    shown = np.asarray(open_cover(tmp_path / "cover"))[..., 0]
    np.testing.assert_allclose(shown, [[0, 127.5, 255], [0, 0, 63.75]], atol=0.51)


def transparent():
    """Pictures with transparency, by mode: the file, and its pixels on white by hand."""
    colours = np.random.default_rng(2).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    opacity = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5 + 10
    opacity[0, :4] = (0, 255, 0, 128)

    def on_white(colours, opacity):
        share = opacity[..., None] / 255
        return colours * share + 255 * (1 - share)

    grey = colours[..., :1]
    rgba = Image.fromarray(np.dstack([colours, opacity]))
    palette = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8), "P")
    palette.putpalette(colours.reshape(-1, 3).tobytes())
    mixed = palette.convert("PA")
    mixed.putalpha(Image.fromarray(opacity))
    key = tuple(colours[2, 3].tolist())
    keyed = np.where((colours == key).all(-1), 0, 255)
    wide = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1285
    wide_rgb = (wide[..., None] / 257).repeat(3, -1)
    return {
        "RGBA": (saved(rgba, "PNG"), on_white(colours, opacity)),
        "RGBA of WebP": (
            saved(rgba, "WEBP", lossless=True, exact=True),
            on_white(colours, opacity),
        ),
        "LA": (
            saved(Image.fromarray(np.dstack([grey, opacity])), "PNG"),
            on_white(grey.repeat(3, -1), opacity),
        ),
        "P": (saved(palette, "PNG", transparency=opacity.tobytes()), on_white(colours, opacity)),
        "P of GIF": (
            saved(palette, "GIF", transparency=9),
            on_white(colours, np.where(np.arange(48).reshape(6, 8) == 9, 0, 255)),
        ),
        "PA": (saved(mixed, "TIFF"), on_white(colours, opacity)),
        "RGB with a clear colour": (
            saved(Image.fromarray(colours), "PNG", transparency=key),
            on_white(colours, keyed),
        ),
        "grey of 16 bits with a clear one": (
            saved(Image.fromarray(wide), "PNG", transparency=int(wide[3, 3])),
            on_white(wide_rgb, np.where(wide == wide[3, 3], 0, 255)),
        ),
    }


@pytest.mark.parametrize("mode", transparent())
def test_what_is_transparent_lies_on_white(tmp_path, mode):
    content, by_hand = transparent()[mode]
    (tmp_path / "cover").write_bytes(content)
    image = open_cover(tmp_path / "cover")
    assert image.mode == "RGB"
    np.testing.assert_allclose(np.asarray(image).astype(float), by_hand, atol=1)


def test_a_picture_is_read_from_an_open_file_and_smaller_if_that_is_enough(photo):
    large = photo.resize((1600, 1200))
    assert picture(io.BytesIO(saved(photo, "PNG"))).tobytes() == photo.tobytes()
    small = picture(io.BytesIO(saved(large, "JPEG")), enough=150)
    assert small.size == (200, 150)


def test_a_config_with_a_checkpoint_and_a_known_name_with_a_checkpoint(clip, encoder, tmp_path):
    checkpoint = str(clip / "open_clip_pytorch_model.bin")
    same = ImageEncoder(str(clip / "tiny-clip.json"), checkpoint, CPU)
    assert same.facts["weights"] == encoder.facts["weights"]
    assert same.facts["pretrained"] == checkpoint and encoder.facts["pretrained"] is None
    assert encoder.facts["preprocess"]["mean"] == [0.4, 0.5, 0.6] and encoder.width == 24
    with pytest.raises(
        ModelNotFoundError, match=r"RN50 with weights .* could not be loaded \(text pos"
    ):
        ImageEncoder("RN50", checkpoint, CPU)


@pytest.mark.parametrize("change", ["no weights", "no config", "no tag", "no pretrained", "name"])
def test_a_model_that_cannot_be_had_is_one_sentence_and_never_random(clip, tmp_path, change):
    model, pretrained = str(tmp_path), None
    if change == "no weights":
        shutil.copy(clip / "open_clip_config.json", tmp_path)
    elif change.startswith("no ") and change != "no config":
        model, pretrained = "RN50", {"no tag": "no-such-tag", "no pretrained": None}[change]
    elif change == "name":
        model = "RN51"
    with pytest.raises(ModelNotFoundError) as caught:
        ImageEncoder(model, pretrained, CPU)
    sentence = str(caught.value)
    start = "The folder" if model == str(tmp_path) else "The image encoder"
    assert sentence.startswith(f"{start} {model}") and sentence.endswith(".")
    assert "\n" not in sentence and ". " not in sentence


def test_offline_a_missing_model_is_one_sentence(tmp_path):
    code = (
        "import torch, urllib.request\nfrom mmctr.content.image import ImageEncoder\n"
        "from mmctr.errors import ModelNotFoundError\n"
        "urllib.request.urlopen = lambda *_: print('network used')\n"
        "try:\n    ImageEncoder('RN50', 'openai', torch.device('cpu'))\n"
        "except ModelNotFoundError as error:\n    print(error)"
    )
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    (sentence,) = done.stdout.splitlines()
    assert sentence.startswith("The image encoder RN50 with weights openai could not be loaded (")
    assert f"in {tmp_path}/hub while HF_HUB_OFFLINE is set: run `python -c" in sentence


def test_quick_gelu_follows_the_tag(clip, monkeypatch):
    """OpenAI's ViT weights were trained with QuickGELU, which the config does not say."""
    import open_clip

    seen = {}
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{clip}")

    def create(name, **options):
        seen.update(options)
        return model, None, transform

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    ImageEncoder("ViT-B-32", "openai", CPU)
    assert seen["force_quick_gelu"] and seen["require_pretrained"]
    ImageEncoder("ViT-B-32", "laion2b_s34b_b79k", CPU)
    assert not seen["force_quick_gelu"]
    assert json.dumps(open_clip.get_model_config("ViT-B-32")).find("quick_gelu") < 0
