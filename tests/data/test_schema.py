"""Where the files of a dataset are found."""

import json

from mmctr.data import schema
from tests.data.test_parquet import write


def test_a_file_is_found_nested_before_flat(tmp_path):
    assert schema.find_file(tmp_path, "train.parquet") is None
    flat = write(tmp_path / "train.parquet", user_id=[1])
    assert schema.find_file(tmp_path, "train.parquet") == flat
    (tmp_path / "MicroLens_1M_x1").mkdir()
    nested = write(tmp_path / "MicroLens_1M_x1" / "train.parquet", user_id=[1])
    assert schema.find_file(tmp_path, "train.parquet") == nested


def test_a_split_is_found_elsewhere_only_if_it_is_not_in_the_folder(tmp_path):
    places = {"train": "s3://bucket/train", "valid": "parts/valid", "item_info": "s3://bucket/info"}
    (tmp_path / schema.ABOUT).write_text(json.dumps(places))
    assert str(schema.find_file(tmp_path, "train.parquet")) == "s3://bucket/train"
    (tmp_path / "parts" / "valid").mkdir(parents=True)
    assert schema.find_file(tmp_path, "valid.parquet") == tmp_path / "parts" / "valid"
    assert schema.find_file(tmp_path, "test.parquet") is None
    assert schema.find_file(tmp_path, "item_info.parquet") is None  # items are few
    own = write(tmp_path / "train.parquet", user_id=[1])
    assert schema.find_file(tmp_path, "train.parquet") == own
