"""What a run carries for other catalogs comes back from its folder, and damage is one sentence."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmctr.content.fusion import embed
from mmctr.data.dataset import Dataset
from mmctr.errors import RunError
from mmctr.runs import carried
from mmctr.runs.run import Run


def test_ids_titles_tags_and_the_strategy_come_back(named_run, named):
    kept, catalog = named_run.carried, named.catalog
    assert kept.ids.tolist() == catalog.ids.tolist()
    assert kept.tag_names == catalog.tag_names
    assert kept.encoders == named.encoders
    np.testing.assert_array_equal(
        kept.titles, carried.title_hashes(catalog.titles) * (kept.ids != "")
    )
    assert len(set(kept.titles[1:])) == len(set(catalog.titles[1:]))
    np.testing.assert_array_equal(
        kept.strategy.embed(catalog), embed(catalog, named_run.strategy)[0]
    )
    asked = np.array([catalog.ids[7], "nobody's", catalog.ids[1]], dtype=object)
    assert kept.numbers(asked).tolist() == [7, 0, 1]


def test_of_data_without_own_ids_the_numbers_are_the_names(tiny_run, tiny):
    assert tiny_run.carried.ids.tolist() == ["", *map(str, range(1, tiny.catalog.n_items + 1))]
    assert tiny_run.carried.tag_names == tiny.catalog.tag_names


def test_tags_without_names_are_kept_without(tiny, tmp_path):
    unnamed = replace(tiny, catalog=replace(tiny.catalog, tag_names={}))
    carried.write(tmp_path, unnamed, None)
    assert carried.read(tmp_path, tiny.catalog.n_items, "ids").tag_names == {}
    assert not (tmp_path / carried.TAGS).exists()


@pytest.mark.parametrize("missing", [carried.ITEMS, carried.STRATEGY, carried.ARRAYS])
def test_a_run_of_an_earlier_version_says_what_it_cannot_do(tiny_run, tmp_path, missing):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "old")
    (folder / missing).unlink()
    with pytest.raises(RunError, match=rf"has no {missing}, because it was trained before runs"):
        _ = Run.load(folder).carried


def spoil_structure(change):
    def spoil(folder):
        about = json.loads((folder / carried.STRATEGY).read_text())
        change(about)
        (folder / carried.STRATEGY).write_text(json.dumps(about))

    return spoil


def spoil_items(change):
    def spoil(folder):
        table = pq.read_table(folder / carried.ITEMS).to_pydict()
        change(table)
        pq.write_table(pa.table(table), folder / carried.ITEMS)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / carried.ITEMS).write_text("no table"),
        lambda folder: (folder / carried.TAGS).write_text("no table"),
        lambda folder: (folder / carried.ARRAYS).write_text("no arrays"),
        lambda folder: (folder / carried.STRATEGY).write_text("{"),
        lambda folder: (folder / carried.STRATEGY).write_text("[" * 100_000),
        spoil_structure(lambda about: about.pop("fitted")),
        spoil_structure(lambda about: about.update(fitted=[])),
        spoil_structure(lambda about: about.update(widths=3)),
        spoil_structure(lambda about: about.update(encoders={"txt_emb_BERT": 3})),
        spoil_structure(lambda about: about["fitted"].update(estimator="os.system")),
        spoil_items(lambda items: items["item_id"].__setitem__(0, 7)),
        spoil_items(lambda items: items["item_id"].__setitem__(0, 10**12)),
        spoil_items(lambda items: items["original_id"].__setitem__(0, None)),
        spoil_items(lambda items: items.pop(carried.TITLE)),
        spoil_items(lambda items: [column.pop() for column in items.values()]),
    ],
)
def test_what_is_damaged_is_one_sentence(named_run, tmp_path, spoil):
    folder = shutil.copytree(named_run.folder, tmp_path / "run")
    spoil(folder)
    with pytest.raises(RunError, match="what it carries for other catalogs is damaged") as caught:
        _ = Run.load(folder).carried
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("found", "is_other"),
    [
        ({"weights": "one", "device": "cuda"}, False),
        ({"weights": "two"}, True),
        ({"weights": "one", "pooling": "cls"}, False),
        ({}, False),
    ],
)
def test_another_encoder_is_one_that_makes_other_vectors(tiny_run, tiny, found, is_other):
    kept = tiny_run.carried
    for column in ("txt_emb_BERT", "elsewhere"):
        kept.encoders[column] = {"weights": "one", "device": "cpu"}
    other = Dataset(tiny.folder, tiny.catalog, tiny.splits)
    vars(other)["encoders"] = {"txt_emb_BERT": found, "elsewhere": {"weights": "two"}}
    assert carried.other_encoder(kept, other) == ("txt_emb_BERT" if is_other else None)
    kept.encoders.clear()
    assert carried.other_encoder(kept, other) is None
