"""What a model scores at once."""

from dataclasses import dataclass

from torch import Tensor

from mmctr.model.attention import Histories


@dataclass(frozen=True)
class Batch:
    """Rows to score, in terms of the distinct items that they name.

    items: int64 [m], item ids. target: int64 [n], positions in items. histories: clicks as
    positions in items, of each row or one history that all rows share. label: float32 [n], or
    None. levels: int64 [n, 2], popularity levels of the targets at the time of each row; None
    where the catalog's stand for all times. fields: int [n, fields], codes of the users' fields,
    then of the context's; None where there are none.
    """

    items: Tensor
    target: Tensor
    histories: Histories
    label: Tensor | None = None
    levels: Tensor | None = None
    fields: Tensor | None = None

    def __len__(self) -> int:
        return len(self.target)
