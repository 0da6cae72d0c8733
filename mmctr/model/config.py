"""The model's parameters: each module of the paper is a switch."""

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from mmctr.config import Config

# What models were made with before a parameter existed, where that is not today's default.
EARLIER: dict[str, Any] = {"identity_dropout": 0.0}


class DINConfig(Config):
    """The model's parameters; each module of the paper is a switch.

    embedding_dim: width of each field. content: the frozen item embedding projected to a field,
    "frozen" as it is, or "finetuned". content_dim: width of that field, None for embedding_dim.
    attention: "dot", the "mlp" of the original DIN, QIN's "relu", or momo's "transformer" (of
    attention_layers, the first of attention_hidden wide within, of which last_outputs are read;
    inverted_mask: as in momo's public code, where it hides the clicks and shows the padding).
    cross_attention: MMCTRers' layers beside the attention. recency: each head of dot attention
    learns how much less older clicks count.
    similarity: whether a field counts how like the target is to its history under the item
    embedding. semantic_ids: whether items have a field of what their item embedding is quantized
    into, beside it; the strategy v6 has it instead.
    identity_dropout: share of rows whose target's identity (id and popularity levels) is hidden in
    training, as that of items with fewer than min_clicks train clicks always is, so that content,
    tags and fields learn to speak for new items; 0 hides none.
    max_history: the latest clicks that are read. item_fields, user_fields, context: whether what
    an import knows beyond ids, tags and popularity is read. cross_layers: 0 switches the cross
    network off; quadratic_layers, each of quadratic_rows: the same of QIN's quadratic network;
    hidden: none switches the DNN off. joined_hidden: of a DNN that reads what these three say.
    """

    embedding_dim: PositiveInt = 32
    content: Literal["projected", "frozen", "finetuned"] = "projected"
    content_dim: PositiveInt | None = None
    attention: Literal["dot", "mlp", "relu", "transformer"] = "dot"
    heads: int = Field(4, ge=1, le=64)  # each is a field, and bilinear interaction meets in pairs
    head_dim: PositiveInt = 16
    attention_hidden: tuple[PositiveInt, ...] = Field((512, 256), min_length=1)
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    attention_layers: int = Field(2, ge=1, le=16)
    last_outputs: int = Field(16, ge=1, le=1000)
    inverted_mask: bool = False
    cross_attention: int = Field(0, ge=0, le=16)
    recency: bool = True
    similarity: bool = False
    semantic_ids: bool = False
    levels_in_history: bool = True
    max_history: int = Field(64, ge=1, le=10_000)
    identity_dropout: float = Field(0.2, ge=0, lt=1)
    min_clicks: PositiveInt = 1
    item_fields: bool = True
    user_fields: bool = True
    context: bool = True
    senet: bool = True
    bilinear: Literal["all", "each", "interaction", "off"] = "all"
    cross_layers: int = Field(1, ge=0, le=8)
    quadratic_layers: int = Field(0, ge=0, le=16)
    quadratic_rows: int = Field(4, ge=1, le=64)
    hidden: tuple[PositiveInt, ...] = (128, 64)
    joined_hidden: tuple[PositiveInt, ...] = ()
    batch_norm: bool = True
    dropout: float = Field(0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _reads_its_fields(self) -> Self:
        if not (self.hidden or self.cross_layers or self.quadratic_layers):
            raise ValueError(
                "Parameters 'hidden', 'cross_layers' and 'quadratic_layers' switch everything off "
                "that reads the fields, expected one of them: leave one out."
            )
        if not self.hidden and self.bilinear != "off":
            raise ValueError(
                f"Parameter 'bilinear' is {self.bilinear!r} and 'hidden' is empty, but the DNN "
                "alone reads products of fields: set bilinear='off'."
            )
        return self

    @classmethod
    def stated(cls, parameters: dict[str, Any]) -> Self:
        """The parameters that a run or a saved model states; ConfigError names a bad one."""
        return cls.of(**EARLIER | parameters)
