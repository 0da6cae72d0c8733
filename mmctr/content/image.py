"""Covers to vectors, with any open_clip model and its own preprocessing."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError

from mmctr.content.text import Encoded, fingerprint, first_sentence, inference
from mmctr.errors import ModelNotFoundError

MEDIUM = "image"
# How `picture` reads files. To be raised whenever it shows some file another way than before, so
# that features which were made of the old pixels are made again.
READING = 2
MAX_PIXELS = 100_000_000  # a picture of more is refused: it would take gigabytes
MAX_RATIO = 500  # of the sides; resizing the short side would blow up the long one
# An encoder of fewer weights takes no longer than decoding, so that the two share the cores; beside
# a larger one (RN50 has 38 million) decoding hardly counts, and every core should encode.
LIGHT = 5_000_000
# Pictures by content, whatever the name says. Formats that start programs (EPS) stay out.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "MPO", "JPEG2000", "ICO", "PPM")
# By the orientation that EXIF tells; 1 is upright. ImageOps.exif_transpose also writes EXIF anew,
# which fails for what some cameras write there.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A batch of covers: pixels of the good ones or None, the reason of each other one [n], seconds.
Decoded = tuple[np.ndarray | None, list[str | None], float]


class ImageEncoder:
    """An open_clip model with its transform; `facts` is all that decides its vectors."""

    def __init__(self, model: str, pretrained: str | None, device: torch.device) -> None:
        """Load a model of open_clip with a tag or a checkpoint file, or a folder of both.

        model: a name that open_clip knows, hf-hub:NAME, a JSON config, or a folder with
        open_clip_config.json and weights. Raises ModelNotFoundError if it cannot be had.
        """
        clip, self.transform = _load(model, pretrained)
        self.device, self.visual = device, clip.visual
        self.facts = {
            "model": model,
            "pretrained": None if _own_weights(model) else pretrained,
            "weights": fingerprint(clip.visual),
            "preprocess": clip.visual.preprocess_cfg,
            "reading": READING,
            "open_clip_torch": version("open_clip_torch"),
            "pillow": version("pillow"),
            "torch": torch.__version__,
        }
        self.light = sum(weight.numel() for weight in clip.visual.parameters()) < LIGHT
        self.model = clip.eval().to(device)
        pixels = self.transform(Image.new("RGB", (8, 8))).numpy()
        self.width = self.facts["width"] = self._encode(pixels[None]).shape[1]

    def encode_shards(
        self,
        shards: list[list[Path | None]],
        batch_size: int,
        advance: Callable[[int], object],
        workers: int,
    ) -> Iterator[Encoded]:
        """Yield the vectors of each shard's covers; `advance` hears of items that are done.

        Worker processes decode ahead, also over the border of shards; batches are cut within one.
        On the CPU a light encoder leaves their cores to them, one at least being its own.
        Seconds: decode (of all workers), wait (of the encoder for covers), encode.
        """
        batches = [s[i : i + batch_size] for s in shards for i in range(0, len(s), batch_size)]
        loader = torch.utils.data.DataLoader(
            batches,
            batch_size=None,
            num_workers=min(workers, len(batches)),
            prefetch_factor=2 if workers and batches else None,
            collate_fn=partial(_decode, self.transform),
        )
        decoded, threads = iter(loader), torch.get_num_threads()
        if self.device.type == "cpu" and self.light:
            torch.set_num_threads(max(1, threads - workers))
        try:
            for paths in shards:
                yield self._encode_shard(len(paths), decoded, advance)
        finally:
            torch.set_num_threads(threads)

    def _encode_shard(
        self, size: int, decoded: Iterator[Decoded], advance: Callable[[int], object]
    ) -> Encoded:
        features = np.zeros((size, self.width), dtype=np.float32)
        reasons: list[str | None] = []
        seconds = dict.fromkeys(("decode", "wait", "encode"), 0.0)
        while len(reasons) < size:
            start = time.perf_counter()
            pixels, found, decoding = next(decoded)
            arrived = time.perf_counter()
            good = [row for row, reason in enumerate(found, len(reasons)) if reason is None]
            if good:
                features[good] = self._encode(pixels)
            seconds["decode"] += decoding
            seconds["wait"] += arrived - start
            seconds["encode"] += time.perf_counter() - arrived
            reasons += found
            advance(len(found))
        return features, reasons, seconds

    def _encode(self, pixels: np.ndarray) -> np.ndarray:
        """Preprocessed pixels [batch, channels, height, width] to float32 [batch, width]."""
        batch = torch.from_numpy(pixels).to(self.device)
        with inference(self.device):
            return self.model.encode_image(batch).float().cpu().numpy()


def picture(file: Path | IO[bytes], enough: int | None = None) -> Image.Image:
    """The first frame of a picture in RGB: upright by its EXIF, what is transparent on white.

    enough: a JPEG may come smaller, in less time, with sides of at least that many pixels. Raises
    what Pillow raises: UnidentifiedImageError, DecompressionBombError and, for damaged files,
    nearly anything.
    """
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    with warnings.catch_warnings(action="ignore"), Image.open(file, formats=known) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
        if enough:
            image.draft("RGB", (enough, enough))
        image.load()  # Pillow turns a TIFF here, and forgets its orientation
        turn, shown = _turn(image), _in_eight_bits(image)
        if shown.has_transparency_data:
            shown = shown.convert("RGBA")
            shown = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
        # Before any resizing, which would mix a palette's numbers instead of its colours.
        shown = shown.convert("RGB")
        return shown if turn is None else shown.transpose(turn)


def open_cover(path: Path | None, enough: int | None = None) -> Any:
    """A cover as `picture` reads it, a PIL image, or the reason why there is none."""
    if path is None or not path.exists():
        return "no cover"
    if not path.stat().st_size:
        return "empty file"
    try:
        cover = picture(path, enough)
    except Image.DecompressionBombError:
        return "decompression bomb"
    except UnidentifiedImageError:
        return "not a picture"
    except Exception:  # Pillow's decoders raise nearly anything for damaged files
        return "truncated or damaged"
    return "too narrow" if max(cover.size) > MAX_RATIO * min(cover.size) else cover


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits in 8, of which Pillow's own conversion makes white above 255."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image, np.float32), posinf=0)
    top = values.max()
    # Integers are of 16 bits, whatever Pillow keeps them in; floats have no range of their own.
    usual = (1, 255, 65535) if image.mode == "F" else (65535,)
    white = next((white for white in usual if top <= white), top)
    grey = Image.fromarray(np.rint(values.clip(0) * (255 / white)).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is not None:
        grey.putalpha(Image.fromarray((values != clear).astype(np.uint8) * 255))
    return grey


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What sets a loaded picture upright, if it says how its camera was held."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # damaged EXIF raises nearly anything, and says nothing of the pixels
        return None


def _decode(transform: Callable, paths: list[Path | None]) -> Decoded:
    # Arrays pass through a pipe; tensors would need shared memory, of which containers have little.
    start = time.perf_counter()
    covers = [open_cover(path) for path in paths]
    pixels = [transform(cover).numpy() for cover in covers if not isinstance(cover, str)]
    reasons = [cover if isinstance(cover, str) else None for cover in covers]
    return np.stack(pixels) if pixels else None, reasons, time.perf_counter() - start


def _own_weights(model: str) -> bool:
    return model.startswith(("hf-hub:", "local-dir:")) or Path(model).is_dir()


def _load(model: str, pretrained: str | None) -> tuple[Any, Callable]:
    """The open_clip model in float32 on the CPU, and its transform for inference."""
    import open_clip

    name = model
    # open_clip logs what it could not fetch; the error below says it once.
    logging.disable(logging.ERROR)
    try:
        if Path(model).is_dir():
            name = f"local-dir:{model}"
        elif Path(model).suffix == ".json":
            open_clip.add_model_config(Path(model))
            name = Path(model).stem
        tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
        clip, _, transform = open_clip.create_model_and_transforms(
            name,
            pretrained=None if _own_weights(model) else pretrained,
            # OpenAI's weights need the activation they were trained with, which only the tag knows.
            force_quick_gelu=bool(tag.get("quick_gelu")),
            require_pretrained=True,
        )
    except Exception as error:  # a checkpoint that does not fit raises nearly anything
        raise ModelNotFoundError(_not_found(model, pretrained, error)) from error
    finally:
        logging.disable(logging.NOTSET)
    return clip, transform


def _not_found(model: str, pretrained: str | None, error: Exception) -> str:
    from huggingface_hub import constants

    cause = first_sentence(error)
    if Path(model).is_dir():
        return (
            f"The folder {model} holds no image encoder that open_clip can load ({cause}): put "
            "open_clip_config.json and open_clip_pytorch_model.bin there."
        )
    offline = " while HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
    call = f"open_clip.create_model('{model}', '{pretrained}')"
    return (
        f"The image encoder {model} with weights {pretrained} could not be loaded ({cause}), "
        f"looked for among local files and in {constants.HF_HUB_CACHE}{offline}: run "
        f'`python -c "import open_clip; {call}"` where there is a network, or name a folder with '
        "--image-model or a checkpoint with --image-pretrained."
    )
