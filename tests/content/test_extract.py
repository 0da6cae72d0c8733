"""Extraction of a whole folder: resumed, shared by ranks, and what it writes."""

import contextlib
import json
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from mmctr.content import extract as module
from mmctr.content import image
from mmctr.content.extract import extract
from mmctr.content.image import ImageEncoder
from mmctr.content.text import TextEncoder
from mmctr.data import schema
from mmctr.data.catalog import load_catalog
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import ConfigError, DataError, MMCTRError
from tests.forks import PROCESSES, started

ITEMS = 40


def extract_slowly(tell, folder, bert, clip, pause=0.0):
    """What other processes run: small shards, and slow ones if it is to be killed in between."""
    module.SHARD = 4
    write = module._write_shard

    def slowly(*arguments):
        time.sleep(pause)
        write(*arguments)
        tell("shard")

    module._write_shard = slowly
    models = {"text_model": str(bert), "image_model": str(clip)}
    tell(str(module.extract(Path(folder), **models, batch_size=3, workers=1)))


def extract_as_rank(rank, port, *arguments):
    """Be one of two processes as torchrun starts them, but for what they import."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "LOCAL_WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    extract_slowly(*arguments)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD", 4)


@pytest.fixture
def run(bert, clip):
    """Extract with the small models; further options as given."""

    def run(folder, **options):
        models = {"text_model": str(bert), "image_model": str(clip)}
        return extract(folder, **{**models, "batch_size": 3, "workers": 0, **options})

    return run


def results(folder):
    """The bytes of what an extraction writes."""
    names = ("item_feature.parquet", "extraction_errors.parquet", "dataset.json")
    return {name: (folder / name).read_bytes() for name in names}


def table(folder):
    return pq.read_table(folder / "item_feature.parquet")


def test_features_are_those_of_the_encoders_and_the_dataset_loads(
    make_items, run, bert, clip, tmp_path
):
    folder = make_items(tmp_path / "items")
    before = table(folder)
    (folder / "dataset.json").write_text('{"recipe": {"seed": 3}}')
    summary = run(folder)
    catalog, after = load_catalog(folder), table(folder)
    assert after.select(before.column_names).equals(before)
    assert after.column_names == [*before.column_names, schema.TEXT_COLUMN, schema.IMAGE_COLUMN]
    assert str(after.schema.field(schema.TEXT_COLUMN).type) == "list<element: float>"
    assert catalog.text_features.shape == (ITEMS + 1, 32)
    assert catalog.image_features.shape == (ITEMS + 1, 24)
    text = TextEncoder(str(bert), "cls", torch.device("cpu"))
    pictures = ImageEncoder(str(clip), None, torch.device("cpu"))
    for item in range(1, ITEMS + 1):
        title, cover = catalog.titles[item], catalog.covers[item]
        (alone, *_), *_ = text.encode_shards([[title]], 1, lambda _: None)
        np.testing.assert_allclose(catalog.text_features[item], alone[0], atol=1e-5)
        (alone, *_), *_ = pictures.encode_shards([[cover]], 1, lambda _: None, 0)
        np.testing.assert_allclose(catalog.image_features[item], alone[0], atol=1e-5)
    about = json.loads((folder / "dataset.json").read_text())
    assert about["recipe"] == {"seed": 3}
    assert about["encoders"][schema.TEXT_COLUMN]["model"] == str(bert)
    assert about["encoders"][schema.IMAGE_COLUMN]["model"] == str(clip)
    assert json.loads(after.schema.metadata[b"mmctr.encoders"]) == about["encoders"]
    assert summary.items == ITEMS and summary.media["text"].computed == ITEMS
    assert set(summary.media["image"].stages) == {"decode", "wait", "encode"}
    assert "image items/s" in str(summary)


def test_unreadable_media_are_zero_listed_and_counted(make_items, run, tmp_path):
    folder = make_items(tmp_path / "items")
    covers = folder / "item_images"
    (covers / "5.jpg").write_bytes(b"")
    (covers / "6.jpg").write_bytes((covers / "6.jpg").read_bytes()[:300])
    (covers / "7.jpg").unlink()
    titled = table(folder).to_pandas()
    titled.loc[[0, 4], "item_title"] = ["", None]
    titled.to_parquet(folder / "item_feature.parquet")
    summary = run(folder)
    errors = pq.read_table(folder / "extraction_errors.parquet").to_pylist()
    assert [tuple(row.values()) for row in errors] == [
        (5, "image", "empty file"),
        (6, "image", "truncated or damaged"),
        (7, "image", "no cover"),
        (1, "text", "empty title"),
        (5, "text", "empty title"),
    ]
    assert summary.media["text"].errors == {"empty title": 2}
    assert sum(summary.media["image"].errors.values()) == 3 and "no cover" in str(summary)
    catalog = load_catalog(folder)
    zero = ~catalog.image_features.any(axis=1), ~catalog.text_features.any(axis=1)
    assert [np.flatnonzero(rows).tolist() for rows in zero] == [[0, 5, 6, 7], [0, 1, 5]]
    # A cover that has been mended is the only thing that is computed again.
    (covers / "7.jpg").write_bytes((covers / "8.jpg").read_bytes())
    summary = run(folder)
    assert (summary.media["image"].computed, summary.media["text"].computed) == (4, 0)
    assert load_catalog(folder).image_features[7].any()
    assert len(pq.read_table(folder / "extraction_errors.parquet")) == 4
    assert len(list((folder / ".extraction").iterdir())) == 2 * ITEMS / 4


def test_one_medium_alone_keeps_the_other(make_items, run, tmp_path):
    folder, said = make_items(tmp_path / "items"), []
    (folder / "item_images" / "2.jpg").unlink()
    run(folder, text_model=None)
    assert schema.TEXT_COLUMN not in table(folder).column_names
    first = table(folder)[schema.IMAGE_COLUMN]
    summary = run(folder, image_model=None, say=said.append)
    assert list(summary.media) == ["text"] and not said
    assert table(folder)[schema.IMAGE_COLUMN].equals(first)
    assert len(pq.read_table(folder / "extraction_errors.parquet")) == 1
    assert len(json.loads((folder / "dataset.json").read_text())["encoders"]) == 2


def test_ready_made_embeddings_are_replaced_column_by_column(make_items, run, bert, tmp_path):
    log = pd.DataFrame({"user_id": 1, "item_id": range(1, 6), "timestamp": range(5)})
    items = make_items(tmp_path / "items")
    features = pd.DataFrame({"item_id": range(1, ITEMS + 1)})
    features["txt_emb"], features["img_emb"] = [[1.0, 2.0]] * ITEMS, [[3.0]] * ITEMS
    paths = [tmp_path / f"{name}.parquet" for name in ("log", "features")]
    log.to_parquet(paths[0])
    features.to_parquet(paths[1])
    folder, recipe = tmp_path / "imported", Recipe.of(title_column="item_title", negatives=1)
    covers, named = items / "item_images", items / "item_feature.parquet"
    import_dataset([paths[0]], [named], covers, folder, recipe, features=[paths[1]])
    run(folder, image_model=None)
    assert load_catalog(folder).text_features.shape == (ITEMS + 1, 32)
    assert table(folder)[schema.IMAGE_COLUMN].to_pylist() == [[3.0]] * ITEMS
    encoders = json.loads((folder / "dataset.json").read_text())["encoders"]
    assert encoders[schema.TEXT_COLUMN]["model"] == str(bert)
    assert encoders[schema.IMAGE_COLUMN] == {"model": "features.parquet:img_emb (ready-made)"}
    assert json.loads(table(folder).schema.metadata[schema.ENCODERS]) == encoders


def test_without_covers_only_titles_and_a_sentence(make_items, run, tmp_path):
    folder, said = make_items(tmp_path / "items", covers=False), []
    run(folder, say=said.append)
    assert said == [f"{folder} has no covers in item_images, so only the titles are extracted."]
    assert schema.IMAGE_COLUMN not in table(folder).column_names
    with pytest.raises(DataError, match="has no medium to extract"):
        run(folder, text_model=None, say=said.append)
    pq.write_table(table(folder).drop("item_title"), folder / "item_feature.parquet")
    with pytest.raises(DataError, match="has no medium to extract"):
        run(folder, say=said.append)
    assert said[-1].endswith("has no column item_title, so only the covers are extracted.")


def test_without_any_model_is_one_sentence(make_items, run, tmp_path):
    with pytest.raises(ConfigError, match="both none: name at least one"):
        run(make_items(tmp_path / "items"), text_model=None, image_model=None)


def test_a_row_of_padding_stays_zero(make_items, run, tmp_path):
    folder = make_items(tmp_path / "items")
    padded = table(folder).to_pandas()
    padded["item_id"] -= 1
    padded["item_tags"] = [[0]] * ITEMS
    padded = padded.drop(columns=["likes_level", "views_level"])
    padded.to_parquet(folder / "item_feature.parquet")
    run(folder)
    catalog = load_catalog(folder)
    assert not catalog.text_features[0].any() and not catalog.image_features[0].any()
    assert catalog.text_features[1:].any(axis=1).all()
    assert not len(pq.read_table(folder / "extraction_errors.parquet"))


def test_another_encoder_setting_is_computed_anew(make_items, run, tmp_path):
    folder = make_items(tmp_path / "items")
    run(folder)
    summary = run(folder, pooling="mean")
    assert summary.media["text"].computed == ITEMS and summary.media["image"].reused == ITEMS
    assert len(list((folder / ".extraction").iterdir())) == 2 * ITEMS / 4


def test_a_turned_cover_has_the_features_of_the_upright_one(make_items, run, tmp_path):
    folder = make_items(tmp_path / "items", items=4)
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    upright = colours.repeat(16, 0).repeat(16, 1)  # even over the blocks of JPEG
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the first row is the right edge
    for item, pixels, about in ((1, upright, {}), (2, np.rot90(upright), {"exif": exif})):
        path = folder / "item_images" / f"{item}.jpg"
        Image.fromarray(pixels).save(path, subsampling=0, quality=100, **about)
    run(folder)
    features = load_catalog(folder).image_features
    np.testing.assert_allclose(features[2], features[1], atol=1e-3)
    assert np.abs(features[3] - features[1]).max() > 0.1


def test_covers_that_were_read_another_way_are_read_again(make_items, run, tmp_path, monkeypatch):
    folder = make_items(tmp_path / "items")
    run(folder)
    monkeypatch.setattr(image, "READING", image.READING + 1)
    summary = run(folder)
    assert summary.media["image"].computed == ITEMS and summary.media["text"].reused == ITEMS
    about = json.loads((folder / "dataset.json").read_text())["encoders"]
    assert about[schema.IMAGE_COLUMN]["reading"] == image.READING


def with_titles(folder, titles):
    """The same items with other titles."""
    titled = table(folder).to_pandas()
    titled["item_title"] = titles
    titled.to_parquet(folder / "item_feature.parquet")
    return folder


def test_a_summary_says_that_many_different_titles_have_one_vector(make_items, run, gpt, tmp_path):
    """A decoder's first token knows the first word alone."""
    words = ["red", "boat", "on", "the", "lake", "chef", "noodles", "2024"]
    titles = [f"{first} {second}" for first in words[:4] for second in words]
    titles += [*titles[:3], "Chef", "noodles on", "", None, " "]
    folder = with_titles(make_items(tmp_path / "items", covers=False), titles)
    models = {"text_model": str(gpt), "image_model": None}
    summary = str(run(folder, **models, pooling="cls"))
    (line,) = [line for line in summary.splitlines() if "share" in line]
    assert line.startswith("text: 32 of 34 different titles share their vector with another title")
    first, second = re.findall(r"'([^']*)'", line)
    assert first != second and {first, second} <= set(titles)
    assert first.split()[0] == second.split()[0]
    assert "share" not in str(run(folder, **models))


def test_few_titles_of_one_vector_are_no_warning_and_titles_cannot_write_on_the_terminal(
    make_items, run, gpt, tmp_path
):
    models = {"text_model": str(gpt), "image_model": None}
    words = ["red", "boat", "on", "the", "lake", "chef", "noodles"]
    distinct = [f"{a} {b}" for a in words for b in words][: ITEMS - 2]
    folder = make_items(tmp_path / "items", covers=False)
    # Words that the tokenizer does not know are one token: 2 of 40 titles are 5%, not more.
    with_titles(folder, [*distinct, "zebra giraffe", "owl fox"])
    assert "share" not in str(run(folder, **models))
    strange = [f"\x1b[3{n}m\n\u202e{'x' * 900}" for n in range(4)]
    with_titles(folder, [*distinct[:-2], *strange])
    summary = str(run(folder, **models))
    (line,) = [line for line in summary.splitlines() if "share" in line]
    assert "text: 4 of 40 different titles" in line and len(line) < 300
    assert summary.replace("\n", "").isprintable()


def test_the_folder_must_be_a_dataset(run, tmp_path):
    with pytest.raises(DataError, match=r"has no item_feature\.parquet"):
        run(tmp_path)


def test_killed_at_several_moments_and_resumed_gives_the_same_bytes(
    make_items, run, bert, clip, tmp_path
):
    whole, killed = make_items(tmp_path / "whole"), make_items(tmp_path / "killed")
    run(whole)
    for shards_before in (1, 11):  # among the covers, among the titles
        ours, theirs = PROCESSES.Pipe()
        arguments = theirs.send, killed, bert, clip, 0.2
        process = PROCESSES.Process(target=extract_slowly, args=arguments)
        process.start()
        theirs.close()
        for _ in range(shards_before):
            assert ours.recv() == "shard"
        with pytest.raises(MMCTRError, match=f"{killed} is being extracted by another process"):
            run(killed)
        time.sleep(0.1)
        process.kill()
        process.join()
        assert schema.TEXT_COLUMN not in table(killed).column_names
    (killed / ".extraction" / ".text-00000000-x.parquet.abc").write_bytes(b"half")
    (killed / ".item_feature.parquet.abc").write_bytes(b"half")
    summary = run(killed)
    # The second run went on from the first, so that 1 + 11 shards were there.
    assert summary.media["image"].reused == ITEMS
    assert 0 < summary.media["text"].reused < ITEMS
    assert results(killed) == results(whole)
    assert not list(killed.glob(".item*")) and not list(killed.glob(".extraction/.*"))


def test_two_ranks_give_the_same_bytes_as_one_process(make_items, run, bert, clip, tmp_path):
    alone, shared = make_items(tmp_path / "alone"), make_items(tmp_path / "shared")
    run(alone)
    ours, theirs = PROCESSES.Pipe()
    told = []
    with started(extract_as_rank, theirs.send, shared, bert, clip) as ranks:
        theirs.close()
        with contextlib.suppress(EOFError):  # as both have ended
            while True:
                told.append(ours.recv())
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert results(shared) == results(alone)
    assert told.count("shard") == 2 * ITEMS / 4
    assert any(str(ITEMS) in one for one in told)


@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
@pytest.mark.parametrize(("shard", "room"), [(ITEMS, 3_000), (4, 4_000)], ids=["shard", "table"])
def test_a_full_disk_leaves_the_items_as_they_were_and_extraction_goes_on(
    monkeypatch, make_items, run, tmp_path, shard, room
):
    monkeypatch.setattr(module, "SHARD", shard)
    folder = make_items(tmp_path / "items")
    before = (folder / "item_feature.parquet").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(MMCTRError, match=rf"{folder}.*could not be written .*\.$") as error:
            run(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert ("item_feature.parquet" in str(error.value)) == (shard == 4)
    assert (folder / "item_feature.parquet").read_bytes() == before
    whole = make_items(tmp_path / "whole")
    for target in (folder, whole):
        run(target)
    assert results(folder) == results(whole)
