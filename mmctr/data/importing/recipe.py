"""How a log becomes a dataset."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from mmctr.config import Config
from mmctr.data import schema


class Recipe(Config):
    """How a log becomes a dataset; kept in dataset.json.

    split: "last-two" takes each user's last click for test and the one before for valid;
    "date" takes clicks from test_from on for test and from valid_from on for valid (seconds, or
    the log's own unit; by default the times that 90% and 80% of the clicks precede).
    text_embedding_column, image_embedding_column: of the features table, which strategies v1 to
    v4 fuse; every other embedding there is for a strategy provided:COLUMN.
    """

    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str = "timestamp"
    rating_column: str = "rating"
    title_column: str = "title"
    tags_column: str = "tags"
    text_embedding_column: str = "txt_emb"
    image_embedding_column: str = "img_emb"
    min_rating: float | None = None
    split: Literal["last-two", "date"] = "last-two"
    valid_from: int | None = None
    test_from: int | None = None
    negatives: NonNegativeInt = 3
    sampling: schema.Sampling = "uniform"
    max_history: PositiveInt = 100
    seed: int = Field(0, ge=0)
