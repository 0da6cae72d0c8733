"""The parameters of training, and how presets and changes make both configurations."""

from functools import cache
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mmctr.config import Config
from mmctr.errors import ConfigError
from mmctr.model.config import EARLIER, DINConfig
from mmctr.model.presets import PRESETS

NOTHING = (None, "None", "null")  # as Python, papermill, JSON and YAML say it


class TrainConfig(Config):
    """How a model is trained.

    embedding_l2, network_l2: Adam's L2 terms. click_weight: of a click's cross-entropy, where a
    negative's is 1. pairwise: share of the loss in which the clicks of a batch are compared with
    its negatives. validations: how often valid is scored within each epoch. patience: validations
    without a better AUC before training stops; half of it before the learning rate is cut to a
    third. averaging: share that a moving average of the weights keeps every 4 steps; valid is
    scored with the average, and a run keeps it; 0 takes the weights as they are. fresh_negatives:
    train negatives that mmctr data import drew, because the log does not know what else was shown,
    are drawn anew for every epoch after the first. rows: for a first look, so many rows of train
    at most, those of whole users drawn by chance; evaluation stays whole. click_rate: the known
    share of clicks in what is really shown, where negatives were drawn; predictions are corrected
    for it. row_updates: the tables of ids and of finetuned content change only in the rows that a
    batch names, which catalogs of millions of items need. shard_items: under torchrun each process
    holds a share of the items' tables and of Adam's moments of them, and looks up the rest; alone
    it holds them all, as without. row_shards: train is cut into so many runs of rows, and every
    batch takes equally many from each; of torchrun's processes each then reads its own runs alone,
    and the result is that of one process with as many. precision: of matrix products; "auto" is
    "bfloat16" on CUDA and "float32" elsewhere.
    """

    seed: int = Field(1, ge=0)
    epochs: PositiveInt = 8
    batch_size: int = Field(1024, ge=3)  # batches of at most 2 can leave a row alone
    learning_rate: PositiveFloat = 3e-3
    embedding_l2: NonNegativeFloat = 1e-3
    network_l2: NonNegativeFloat = 0.0
    click_weight: PositiveFloat = 1.0
    pairwise: float = Field(0.0, ge=0, le=1)
    validations: PositiveInt = 4
    patience: PositiveInt = 4
    max_gradient_norm: PositiveFloat = 10.0
    averaging: float = Field(0.97, ge=0, lt=1)
    fresh_negatives: bool = True
    rows: PositiveInt | None = None
    click_rate: float | None = Field(None, gt=0, lt=1)
    row_updates: bool = False
    shard_items: bool = False
    row_shards: PositiveInt = 1
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


def configs(preset: str | None = None, **parameters: object) -> tuple[DINConfig, TrainConfig]:
    """A preset's configurations with some parameters changed; None leaves one as it is.

    Raises ConfigError for an unknown preset and names a bad parameter.
    """
    preset = "default" if preset in NOTHING else preset
    if str(preset) not in PRESETS:
        raise ConfigError(f"Preset {preset!r} is unknown: choose one of {', '.join(PRESETS)}.")
    given = {name: value for name, value in parameters.items() if value not in NOTHING}
    parameters = PRESETS[preset] | given
    known = [*DINConfig.model_fields, *TrainConfig.model_fields]
    for name in parameters:
        if name not in known:
            raise ConfigError(f"Parameter {name!r} is unknown: choose one of {', '.join(known)}.")
    model = {name: value for name, value in parameters.items() if name in DINConfig.model_fields}
    training = {name: value for name, value in parameters.items() if name not in model}
    return DINConfig.of(**model), TrainConfig.of(**training)


def stated(parameters: dict[str, Any]) -> dict[str, Any]:
    """All parameters of a run but its seed, as JSON has them.

    parameters: those of model and training that its config.json states; those of a version before
    they existed are as they were then.
    """
    whole = _whole("default") | EARLIER | parameters
    return {name: value for name, value in whole.items() if name != "seed"}


def changes(parameters: dict[str, Any]) -> dict[str, Any]:
    """The fewest arguments from which `configs` makes these parameters, as `stated` gives them.

    A preset is among them if that makes them fewer.
    """
    found = {}
    for preset in PRESETS:
        base, named = _whole(preset), {} if preset == "default" else {"preset": preset}
        differing = {name: value for name, value in parameters.items() if value != base.get(name)}
        # To say null leaves a parameter as the preset has it.
        if not named or None not in differing.values():
            found[preset] = named | differing
    return min(found.values(), key=len)


@cache
def _whole(preset: str) -> dict[str, Any]:
    """All parameters of a preset but the seed, as JSON has them."""
    model, training = (config.model_dump(mode="json") for config in configs(preset))
    return model | {name: value for name, value in training.items() if name != "seed"}
