"""Where the files of a dataset are found."""

from mmctr.data import schema
from tests.data.test_parquet import write


def test_a_file_is_found_nested_before_flat(tmp_path):
    assert schema.find_file(tmp_path, "train.parquet") is None
    flat = write(tmp_path / "train.parquet", user_id=[1])
    assert schema.find_file(tmp_path, "train.parquet") == flat
    (tmp_path / "MicroLens_1M_x1").mkdir()
    nested = write(tmp_path / "MicroLens_1M_x1" / "train.parquet", user_id=[1])
    assert schema.find_file(tmp_path, "train.parquet") == nested
