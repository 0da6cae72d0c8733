"""Strategies that fuse text and image features into one embedding per item: the registry.

Each strategy is a scikit-learn transformer of the matrix [text features ; image features]. The
paper (arXiv 2504.18961) defines v4 only; v1 to v3 are our reading of it, and v5 is what it names as
future work. To add a strategy, add one function to STRATEGIES: notebooks, reports, command line and
tests pick it up from there.
scikit-learn takes seconds to import: functions do it, so that a wrong name is told at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmctr.errors import ConfigError

if TYPE_CHECKING:
    from sklearn.base import TransformerMixin

PROVIDED = "provided:"
IDS = "ids"  # no item embedding: ids, tags and levels alone


def v1(text: slice, image: slice, dim: int) -> TransformerMixin:
    """Text only: PCA of the BERT features."""
    return blocks(("text", _reduced(dim), text))


def v2(text: slice, image: slice, dim: int) -> TransformerMixin:
    """Image only: PCA of the CLIP features."""
    return blocks(("image", _reduced(dim), image))


def v3(text: slice, image: slice, dim: int) -> TransformerMixin:
    """Joint: PCA of the concatenated BERT and CLIP features."""
    return blocks(("joint", _reduced(dim), slice(text.start, image.stop)))


def v4(text: slice, image: slice, dim: int) -> TransformerMixin:
    """Separate: half the width from a PCA of text, half from one of image (the paper's best)."""
    half = dim // 2
    return blocks(("text", _reduced(half), text), ("image", _reduced(dim - half), image))


def v5(text: slice, image: slice, dim: int) -> TransformerMixin:
    """Aligned: half the width as in v4, half turned until what the same users click is alike.

    Alone, the aligned half did worse on valid: what a projection has learned of the items that were
    clicked, it has not of others.
    """
    from mmctr.content.alignment import ContrastiveAlignment

    media = {"text": text, "image": image}
    media = {name: part for name, part in media.items() if part.stop > part.start}
    half, first = dim // 2, min((part.start for part in media.values()), default=0)
    parts = [
        (name, _reduced((half + number) // len(media)), part)
        for number, (name, part) in enumerate(media.items())
    ]
    columns = [[part.start - first, part.stop - first] for part in media.values()]
    aligned = ContrastiveAlignment(columns, dim - half)
    return blocks(*parts, ("aligned", aligned, slice(first, image.stop)))


def v6(text: slice, image: slice, dim: int) -> TransformerMixin:
    """Quantized: v5 as semantic ids, each of which the model embeds.

    It gives int32 [n, levels].
    """
    from sklearn.pipeline import make_pipeline

    from mmctr.content.quantization import ResidualQuantizer

    return make_pipeline(v5(text, image, dim), ResidualQuantizer())


STRATEGIES: dict[str, Callable[[slice, slice, int], TransformerMixin]] = {
    "v1": v1,
    "v2": v2,
    "v3": v3,
    "v4": v4,
    "v5": v5,
    "v6": v6,
}
# Fitted to train clicks too, and to whichever of text and image there are.
FROM_CLICKS = ("v5", "v6")


def choices() -> str:
    """All names that a strategy can have, in words."""
    return f"{', '.join([*STRATEGIES, IDS])} or {PROVIDED}COLUMN"


def require_known(strategy: str) -> None:
    """Raise ConfigError for a name that no data could serve."""
    # YAML and papermill make a number of a name that looks like one.
    if strategy not in (*STRATEGIES, IDS) and not str(strategy).startswith(PROVIDED):
        raise ConfigError(f"Strategy {strategy!r} is unknown: choose one of {choices()}.")


def in_words(strategy: str) -> str:
    """What a strategy makes of text and image: for those of the registry, as its function says."""
    if strategy in STRATEGIES:
        said = (STRATEGIES[strategy].__doc__ or "").strip().splitlines()[0]
        return said[:1].lower() + said[1:].removesuffix(".")
    named = strategy.removeprefix(PROVIDED)
    return "without text and image" if strategy == IDS else f"the ready-made embedding {named}"


def blocks(*parts: tuple[str, TransformerMixin, slice]) -> TransformerMixin:
    """Blocks of columns, transformed separately and joined: (name, transformer, columns)."""
    from sklearn.compose import ColumnTransformer

    return ColumnTransformer(list(parts))


def _reduced(components: int) -> TransformerMixin:
    """The principal components of a block, at a root mean square of 1."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from mmctr.content.scaling import RootMeanSquareScaler

    # The covariance solver is exact and deterministic, and quick where rows outnumber columns. In
    # float32 it loses the differences between items far from zero, hence the centring before it.
    pca = PCA(components, svd_solver="covariance_eigh", random_state=0)
    return make_pipeline(StandardScaler(with_std=False), pca, RootMeanSquareScaler())
