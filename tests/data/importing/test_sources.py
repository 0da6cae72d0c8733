"""Tables that cannot be read are one sentence."""

import pytest

from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import DataError
from tests.data.importing.logs import ITEMS


@pytest.mark.parametrize("text", ["", "user_id,item_id,timestamp\na,i1,soon\n", "a\x00b"])
def test_odd_logs_are_one_sentence(tmp_path, text):
    (tmp_path / "log.csv").write_text(text)
    ITEMS.to_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"log\.csv"):
        import_dataset(
            tmp_path / "log.csv", tmp_path / "items.parquet", None, tmp_path / "o", Recipe.of()
        )
