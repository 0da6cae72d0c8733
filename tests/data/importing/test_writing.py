"""What an import writes."""

import json

import pandas as pd

from mmctr.data.dataset import Dataset
from tests.data.importing.logs import ITEMS, imported


def test_the_dataset_loads_with_titles_tags_covers_and_recipe(tmp_path):
    covers = tmp_path / "covers"
    covers.mkdir()
    for name in ("i0.jpg", "i3.PNG", "i5.webp", "nobody.jpg", "i1.txt"):
        (covers / name).write_bytes(name.encode())
    log = [("a", number % 7, number) for number in range(9)] + [("b", 1, 3), ("b", 9, 4)]
    out, facts = imported(tmp_path, log, covers=covers, negatives=1)
    dataset = Dataset.load(out)
    assert dataset.catalog.titles.tolist() == ["", *ITEMS["title"]]
    assert sorted(dataset.catalog.covers) == [1, 4, 6]
    assert dataset.catalog.covers[4].read_bytes() == b"i3.PNG"
    names = pd.read_parquet(out / "tags.parquet").set_index("tag")["name"]
    words = [[names[tag] for tag in row if tag] for row in dataset.catalog.tags[1:6]]
    assert words == [["Drama", "Comedy"], ["Drama"], [], [], ["Sci-Fi, Noir"]]
    assert names[1] == "Comedy"
    ids = pd.read_parquet(out / "item_ids.parquet")
    assert ids["original_id"].tolist() == ITEMS["item_id"].tolist()
    recipe = json.loads((out / "dataset.json").read_text())
    assert recipe["recipe"]["negatives"] == 1
    assert recipe["counts"] == facts["counts"]
    assert facts["counts"]["repeated"] == 2
    assert dataset.split("test").label is not None
