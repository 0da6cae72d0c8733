"""A run on another catalog: what it knows goes with the ids, what is new shows no identity."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmctr.content.quantization import ResidualQuantizer
from mmctr.data.dataset import Dataset
from mmctr.data.fields import Field
from mmctr.errors import RunError
from mmctr.runs import grown
from mmctr.runs.run import Run
from mmctr.runs.train import train, train_from
from mmctr.runs.verify import rerun, verify
from mmctr.training.config import configs
from mmctr.training.prediction import Scorer, predict
from tests.data.folders import load_with_fields
from tests.runs.conftest import renumbered

SMALL = {"epochs": 1, "embedding_dim": 8, "heads": 2, "hidden": (16,), "batch_size": 256}
KEPT = [number for number in range(1, 301) if number % 10]


@pytest.fixture(scope="module")
def monday(named):
    """The named data without a tenth of their items."""
    return renumbered(named, KEPT)


@pytest.fixture(scope="module", params=["known", "hidden"])
def run(request, monday, tmp_path_factory):
    """A run on nine tenths of the items, which learned to do without identities, or did not.

    The former has semantic ids too, which new items get from what they look like.
    """
    further = {"identity_dropout": 0.1, "semantic_ids": True}
    small = configs(**SMALL, **further if request.param == "hidden" else {"identity_dropout": 0})
    return train(monday, "v4", *small, tmp_path_factory.mktemp("runs"))


def test_on_its_own_data_a_run_is_as_it_is(run, monday):
    model, drift = run.adapted(monday)
    assert drift is None
    np.testing.assert_array_equal(predict(model, monday.valid), run.predictions["probability"])


def test_a_catalog_in_another_order_gives_the_very_same_probabilities(run, monday):
    order = np.random.default_rng(0).permutation(np.arange(1, len(KEPT) + 1)).tolist()
    tags = np.random.default_rng(1).permutation(np.unique(monday.catalog.tags)[1:]).tolist()
    other = renumbered(monday, order, tags)
    model, drift = run.adapted(other)
    for split in ("valid", "test"):
        expected = predict(run.model(), monday.split(split))
        np.testing.assert_allclose(predict(model, other.split(split)), expected, rtol=2e-6)
    assert (drift.gone, drift.new.sum(), drift.retitled.sum(), drift.changed.sum()) == (0, 0, 0, 0)
    assert {count for count, _ in drift.unknown(other, other.valid).values()} == {0}
    # Not one array differs, but for its order.
    before, after = run.model().embedding, model.embedding
    place = torch.tensor([0, *order])
    assert torch.equal(after.id.weight, before.id.weight[place])
    assert torch.equal(after.content, before.content[place])
    if before.beside is not None:
        assert torch.equal(after.beside.codes, before.beside.codes[place])


def naive_vector(run, dataset, item):
    """The vector of an item that a run does not know, field by field from the run's arrays."""
    weights = run.model().state_dict()
    names = {name: tag for tag, name in run.carried.tag_names.items()}
    catalog = dataset.catalog
    known = [names[catalog.tag_name(tag)] for tag in catalog.tags[item] if tag]
    tags = weights["embedding.tags.weight"][known].mean(dim=0)
    features = np.hstack([catalog.text_features[item], catalog.image_features[item]])
    content = run.carried.strategy.transformer.transform(features[None].astype(np.float32))
    projected = torch.from_numpy(content) @ weights["embedding.projection.weight"].T
    levels = [weights[f"embedding.{level}.weight"][0] for level in ("likes_level", "views_level")]
    fields = [torch.zeros_like(tags), tags, projected[0]]
    if run.config["model"]["semantic_ids"]:
        quantizer = ResidualQuantizer().fit(run.tensor("embedding.content")[1:])
        by_prefix = weights["embedding.beside.table.table.weight"]
        starts = np.append(0, np.cumsum(quantizer.counts_ + 1)[:-1])
        fields.append(by_prefix[starts + quantizer.transform(content)[0]].sum(dim=0))
    return torch.cat([*fields, *levels])


def test_new_items_are_what_their_content_and_tags_say(run, named):
    model, drift = run.adapted(named)
    new = np.flatnonzero(drift.new)
    assert new.tolist() == [number for number in range(1, 301) if number % 10 == 0]
    vectors = model.embedding(torch.from_numpy(new))
    for vector, item in zip(vectors, new, strict=True):
        expected = naive_vector(run, named, item)
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)


def test_rows_of_known_items_alone_are_scored_as_before(run, named, monday):
    model, _ = run.adapted(named)
    number = np.array([0, *KEPT])
    rows = monday.split("test")
    there = replace(rows, target=number[rows.target].astype(np.int32))
    there = replace(there, history_items=number[rows.history_items].astype(np.int32))
    # Both hide what training never saw, and popularity is the catalog's.
    expected = predict(run.model(), rows)
    np.testing.assert_allclose(predict(model, there), expected, rtol=2e-6)


def test_items_that_are_gone_are_counted(run, named):
    fewer = renumbered(named, range(1, 51))
    model, drift = run.adapted(fewer)
    assert drift.gone == len(KEPT) - 45
    assert model.n_items == 50
    assert np.isfinite(predict(model, fewer.valid)).all()


def test_unknown_tags_do_not_count_in_the_mean(run, named, monday):
    tags = monday.catalog.tags.copy()
    row = int(np.flatnonzero((tags > 0).sum(axis=1) > 1)[0])
    gone = int(tags[row][tags[row] > 0][0])
    names = monday.catalog.tag_names | {gone: "Never heard of"}
    other = replace(monday, catalog=replace(monday.catalog, tag_names=names))
    vars(other)["fingerprint"] = "other tags"
    model, drift = run.adapted(other)
    assert drift.unknown(other, other.valid)["tags"][0] == 1
    rest = torch.tensor([tag for tag in tags[row].tolist() if tag not in (0, gone)])
    expected = run.model().embedding.tags.weight[rest].mean(dim=0)
    torch.testing.assert_close(model.embedding(torch.tensor([row]))[0, 8:16], expected)


def with_catalog(dataset, **changes):
    """A dataset whose catalog differs, of another fingerprint."""
    other = replace(dataset, catalog=replace(dataset.catalog, **changes))
    vars(other)["fingerprint"] = "another"
    return other


def test_changed_titles_and_features_are_told_and_taken(run, monday):
    catalog = monday.catalog
    titles, text = catalog.titles.copy(), catalog.text_features.copy()
    titles[3], text[[5, 6]] = "A new title", text[[6, 5]]
    text[7] += 1e-5  # as another machine rounds
    other = with_catalog(monday, titles=titles, text_features=text)
    model, drift = run.adapted(other)
    assert np.flatnonzero(drift.retitled).tolist() == [3]
    assert np.flatnonzero(drift.changed).tolist() == [5, 6]
    before, after = run.model().embedding.content, model.embedding.content
    differs = (before != after).any(dim=1)
    assert np.flatnonzero(differs).tolist() == [5, 6]
    torch.testing.assert_close(after[5, :64], before[6, :64], rtol=1e-4, atol=1e-4)
    assert "known items, other title                1" in drift.in_words(other, other.valid)


def test_data_without_titles_are_not_data_with_other_titles(run, monday, tmp_path):
    none = np.full(len(monday.catalog.titles), "", dtype=object)
    untitled = with_catalog(monday, titles=none)
    assert run.adapted(untitled)[1].retitled.sum() == 0
    small = train(untitled, "ids", *configs(**SMALL), tmp_path)
    titled = renumbered(monday, range(len(KEPT), 0, -1))
    assert small.adapted(titled)[1].retitled.sum() == 0


def test_what_is_unknown_is_counted_as_a_loop_counts(run, named):
    _, drift = run.adapted(named)
    rows, known = named.valid, set(KEPT)
    clicks = [item for row in range(len(rows)) for item in rows.history(row).tolist()]
    clicked = [item for item, label in zip(rows.target, rows.label, strict=True) if label]
    largest = int(named.catalog.tags.max())  # the kept items have the names of these tags too
    assert drift.unknown(named, rows) == {
        "items": (30, 300),
        "tags": (largest - int(renumbered(named, KEPT).catalog.tags.max()), largest),
        "clicked targets": (sum(int(item) not in known for item in clicked), len(clicked)),
        "clicks in histories": (sum(item not in known for item in clicks), len(clicks)),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("narrower", "fitted to a column txt_emb_BERT of .* numbers, but these items have 3"),
        ("absent", "fitted to a column txt_emb_BERT of .* numbers, but these items have none"),
        ("ids", "No item of .* has an id that .* knows"),
        ("meanings", "have another title and content there, so that its ids mean other items"),
        ("encoder", "has txt_emb_BERT of another encoder than"),
        ("fields", "was trained with other fields, or other values of them"),
    ],
)
def test_what_cannot_be_served_is_refused(run, monday, change, message):
    catalog, rolled = monday.catalog, np.r_[0, 2 : len(KEPT) + 1, 1]
    text = catalog.text_features
    other = {
        "narrower": lambda: with_catalog(monday, text_features=text[:, :3].copy()),
        "absent": lambda: with_catalog(monday, text_features=None),
        "ids": lambda: with_catalog(monday, own_ids=np.array([f"x{one}" for one in catalog.ids])),
        "meanings": lambda: with_catalog(
            monday, text_features=text[rolled], titles=catalog.titles[rolled]
        ),
        "encoder": lambda: with_catalog(monday),
        "fields": lambda: replace(
            with_catalog(monday), row_fields=(Field("device", "context", values=("a",)),)
        ),
    }[change]()
    vars(other)["fingerprint"] = "another"
    if change == "encoder":
        vars(other)["encoders"] = {"txt_emb_BERT": {"weights": "b"}}
        run = Run.load(run.folder)
        run.carried.encoders["txt_emb_BERT"] = {"weights": "a"}
    with pytest.raises(RunError, match=message) as caught:
        run.adapted(other)
    assert "\n" not in str(caught.value)


def test_an_old_run_serves_its_own_data_and_says_why_no_other(run, monday, named, tmp_path):
    old = shutil.copytree(run.folder, tmp_path / "old")
    for name in ("items.parquet", "strategy.json", "strategy.safetensors", "tags.parquet"):
        (old / name).unlink()
    old = Run.load(old)
    assert old.adapted(monday)[1] is None
    assert old.adapted(with_catalog(monday))[1] is None
    with pytest.raises(RunError, match=r"has no items.parquet, because it was trained before"):
        old.adapted(named)


@pytest.mark.parametrize("strategy", ["ids", "provided:item_emb_d128"])
def test_other_strategies_serve_other_catalogs_too(strategy, tiny, tmp_path):
    run = train(tiny, strategy, *configs(**SMALL), tmp_path)
    order = [*range(150, 0, -1), *range(151, 301)]
    other = renumbered(tiny, order)
    if strategy != "ids":
        vectors = tiny.catalog.provided_embedding("item_emb_d128")[[0, *order]]
        catalog = other.catalog
        object.__setattr__(catalog, "provided_embedding", lambda _: vectors)
    model, drift = run.adapted(other)
    assert drift.changed.sum() == 0
    expected = predict(run.model(), tiny.valid)
    np.testing.assert_allclose(predict(model, other.valid), expected, rtol=2e-6)


def test_finetuned_content_is_kept_where_it_was_learned(named, monday, tmp_path):
    run = train(monday, "v1", *configs(**SMALL, content="finetuned"), tmp_path)
    model, drift = run.adapted(named)
    assert drift.changed.sum() == 0
    learned = run.model().embedding.content
    assert torch.equal(model.embedding.content[torch.tensor(KEPT)], learned[1:])
    made = run.carried.strategy.embed(named.catalog)
    np.testing.assert_array_equal(model.embedding.content.detach().numpy()[10], made[10])


def test_a_scorer_of_a_run_serves_the_grown_catalog(run, named):
    scorer = Scorer.of(run, named)
    rows = named.valid
    model, _ = run.adapted(named)
    for row in range(3):
        one = rows.select(np.array([row]))
        if one.levels is None:
            found = scorer(rows.history(row), rows.target[[row]])
            np.testing.assert_allclose(found, predict(model, one), rtol=1e-4)


def test_training_starts_from_a_run_on_a_grown_catalog(run, named, tmp_path):
    _, training = configs(**run.config["training"] | {"learning_rate": 1e-9})
    again = train_from(run, named, training, tmp_path)
    assert again.config["origin"] == {
        "name": run.name,
        "folder": str(run.folder),
        "weights_sha256": run.weights_hash(),
    }
    before, after = run.model(), again.model()
    place = torch.tensor(KEPT)
    torch.testing.assert_close(after.embedding.id.weight[place], before.embedding.id.weight[1:])
    assert torch.equal(after.embedding.content[place], before.embedding.content[1:])
    torch.testing.assert_close(after.output.weight, before.output.weight)
    fresh = after.embedding.id.weight[10]
    assert 0 < fresh.abs().max() < 0.1
    again.require_fit(named)
    assert verify(again, named).differing == []
    np.testing.assert_allclose(
        again.carried.strategy.embed(named.catalog), run.carried.strategy.embed(named.catalog)
    )
    # And from a run that itself was started so.
    third = train_from(again, renumbered(named, [*KEPT, 10]), training, tmp_path)
    assert third.config["origin"]["name"] == again.name


def test_a_warm_start_runs_again_or_says_why_not(run, named, tmp_path):
    again = train_from(run, named, configs(**run.config["training"])[1], tmp_path / "runs")
    _, comparison = rerun(again, named, tmp_path / "again")
    assert comparison == "The weights are identical, bit for bit."
    stated = again.config | {"origin": again.config["origin"] | {"weights_sha256": "0"}}
    with pytest.raises(RunError, match=r"was started from .* is not there with the weights that"):
        rerun(replace(again, config=stated), named, tmp_path / "again")


def test_values_that_training_did_not_know_are_unknown(tmp_path):
    dataset = load_with_fields(tmp_path / "data")
    brand, country, *context = dataset.fields
    fewer = (replace(brand, values=("a",)), country, *context)
    read = Dataset.load(dataset.folder, fewer)
    assert read.catalog.field_codes[:, 0].tolist() == [0, 1, 0, 1, 0]
    small = configs(epochs=1, embedding_dim=4, heads=1, hidden=(4,), batch_size=4)
    run = train(read, "ids", *small, tmp_path / "runs")
    assert run.fields == fewer
    vars(read)["fingerprint"] = "another"
    _, drift = run.adapted(read)
    counts = drift.unknown(read, read.valid)
    assert counts["brand (item), items"] == (2, 4)
    assert counts["country (user), rows"] == (1, 2)
    vars(dataset)["fingerprint"] = "another"
    with pytest.raises(RunError, match=r"read it by Dataset.load\(folder, run.fields\)"):
        run.adapted(dataset)


def test_how_scores_moved_is_mean_and_quantiles():
    before, after = np.linspace(0, 1, 101), np.linspace(0, 0.5, 101)
    lines = grown.moved(before, after).splitlines()
    assert lines[1].split() == ["here", "0.2500", "0.0250", "0.2500", "0.4750"]
    assert lines[2].split()[-4:] == ["0.5000", "0.0500", "0.5000", "0.9500"]
