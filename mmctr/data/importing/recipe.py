"""How a log becomes a dataset."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from mmctr.config import Config
from mmctr.data import schema
from mmctr.data.schema import Sampling

Text = str | int | float  # a name or a date; -p reads 2024 as a number


class Recipe(Config):
    """How a log becomes a dataset; kept in dataset.json.

    item_column: of the log; items_id_column, features_id_column, covers_id_column: of the other
    tables, the log's own if not given. items_time_column: of the items, when each came; clicks
    before that are found by mmctr data clean. order_by: a column that orders clicks of equal time,
    which otherwise count as simultaneous and follow the item id. split: "last-two" takes each
    user's last click for test and the one before for valid; "date" takes clicks from test_from on
    for test and from valid_from on for valid (dates, or numbers as in the log; by default the times
    that 90% and 80% of the events precede); "new-items" takes new_share of the clicked items for
    valid and as many for test, by chance or those first clicked last (new_by), and never shows them
    to train; what else their users clicked is split as by "last-two".
    label_column: says of each row whether it is a click, so that the others are the negatives: 1
    and 0 or yes and no; with min_rating rows from that value on are clicks, with click those of
    these values (by comma). negatives_are: what the others were, "shown" or "outcome" (tried and
    not liked), which min_rating means. where: a condition in SQL; other rows are left out.
    impression_column: alike for items that were shown together, at the time of the first.
    shown_column, clicked_column: lists of items, for logs with a row for each impression, or words
    such as "N1-1 N2-0".
    item_fields, user_fields, context_fields: further columns of the items, the users' table and the
    log, by comma, as name or name:kind (category, number or time).
    text_embedding_column, image_embedding_column: of the features table, which strategies v1 to v4
    fuse; every other embedding there is for a strategy provided:COLUMN. delimiter: of the CSV files
    whose first line has it; encoding: of those that are not UTF-8; both are found out for all
    others. memory: GB that the whole process stays within, from 1 on, however many clicks there
    are. DuckDB, which sorts, has a quarter of it and spills the rest beside the output; libraries
    and the clicks that are written at once need about 0.6. Not counted: titles and tags,
    embeddings, and a single user's clicks if they are over 260,000. On Spark these are GB of the
    driver and of each task; Java has its own.
    """

    user_column: str = "user_id"
    item_column: str = "item_id"
    items_id_column: str | None = None
    features_id_column: str | None = None
    covers_id_column: str | None = None
    time_column: str = "timestamp"
    order_by: str | None = None
    rating_column: str = "rating"
    items_time_column: str = schema.AVAILABLE
    title_column: str = "title"
    tags_column: str = "tags"
    text_embedding_column: str = "txt_emb"
    image_embedding_column: str = "img_emb"
    min_rating: float | None = None
    label_column: str | None = None
    click: bool | Text | None = None
    negatives_are: Literal["shown", "outcome"] | None = None
    where: str | None = None
    impression_column: str | None = None
    shown_column: str | None = None
    clicked_column: str | None = None
    item_fields: str | None = None
    user_fields: str | None = None
    users_id_column: str | None = None
    context_fields: str | None = None
    split: Literal["last-two", "date", "new-items"] = "last-two"
    new_share: float = Field(0.1, gt=0, lt=0.5)
    new_by: Literal["random", "first-click"] = "random"
    valid_from: Text | None = None
    test_from: Text | None = None
    negatives: NonNegativeInt = 3
    sampling: Sampling = "uniform"
    max_history: PositiveInt = 100
    seed: int = Field(0, ge=0)
    delimiter: str | None = None
    encoding: str | None = None
    memory: PositiveFloat = 4.0

    @property
    def labelled(self) -> bool:
        """Whether the log says what was not clicked."""
        return self.label_column is not None or self.shown_column is not None

    @model_validator(mode="after")
    def _no_word_in_vain(self) -> Self:
        said = self.model_dump(exclude_none=True)
        shown = ["label_column", "shown_column"]
        needs = {"clicked_column": shown[1:], "click": shown[:1]}
        needs |= dict.fromkeys(("impression_column", "negatives_are"), shown)
        for name, either in needs.items():
            if name in said and not said.keys() & set(either):
                words = " or ".join(either)
                raise ValueError(f"Parameter {name!r} means nothing without {words}: give both.")
        against = {"shown_column": ("label_column", "min_rating"), "click": ("min_rating",)}
        against["order_by"] = ("impression_column", "shown_column")  # shown together is at once
        for name, others in against.items():
            if both := [other for other in others if name in said and other in said]:
                raise ValueError(f"Parameters {name!r} and {both[0]!r} exclude each other.")
        return self
