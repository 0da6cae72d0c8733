"""Explanations against the model itself, naive loops and scikit-learn."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from mmctr.data import demo_clicks
from mmctr.data.demo import Topics
from mmctr.data.fields import Field
from mmctr.data.impressions import Impressions
from mmctr.errors import ConfigError
from mmctr.evaluation import explain
from mmctr.model.attention import Histories
from mmctr.model.batch import Batch
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.training.batches import Batches
from mmctr.training.prediction import predict


def test_attention_names_the_clicks_that_the_model_weighs(tiny, tiny_run):
    model, rows = tiny_run.model(), tiny.valid
    table = explain.attention(model, rows)
    for row in (0, 5, 17):
        mine = table[(table["row"] == row) & (table["head"] == 2)].sort_values("age")
        assert mine["item"].tolist() == rows.history(row)[::-1].tolist()
        assert mine["age"].tolist() == list(range(1, len(mine) + 1))
        assert set(mine["target"]) <= {rows.target[row]}
        batch = next(Batches(rows.select(np.array([row])), model).in_order(1))
        weights = model.attention_weights(batch).detach().numpy()
        np.testing.assert_allclose(mine["weight"], weights[::-1, 1], atol=1e-6)
    totals = table.groupby(["row", "head"])["weight"].sum()
    np.testing.assert_allclose(totals, 1, atol=1e-5)


def test_attention_goes_on_over_all_batches(tiny, tiny_run):
    model, rows = tiny_run.model(), tiny.train.select(np.arange(2200))
    table = explain.attention(model, rows)
    heads, read = model.config.heads, np.minimum(rows.history_length, model.config.max_history)
    counts = table["row"].value_counts().reindex(range(2200), fill_value=0)
    assert counts.tolist() == (heads * read).tolist()
    last = table[(table["row"] == 2199) & (table["head"] == 1)].sort_values("age")
    assert last["item"].tolist() == rows.history(2199)[::-1][: read[2199]].tolist()
    assert (table["target"].to_numpy() == rows.target[table["row"]]).all()


def test_attention_leaves_out_clicks_that_the_model_does_not_read(tiny):
    model = DIN.for_catalog(DINConfig.of(max_history=3, embedding_dim=2), tiny.catalog, None).eval()
    table = explain.attention(model, tiny.valid)
    assert table["age"].max() == 3
    one = table[table["head"] == 1].groupby("row").size()
    assert (one == np.minimum(tiny.valid.history_length, 3)[one.index]).all()
    np.testing.assert_allclose(table.groupby(["row", "head"])["weight"].sum(), 1, atol=1e-5)


def test_field_weights_summarise_senet(tiny, tiny_run):
    model = tiny_run.model()
    table = explain.field_weights(model, tiny.valid)
    batch = next(Batches(tiny.valid, model).in_order(len(tiny.valid)))
    weights = model.field_weights(batch).detach().numpy()
    assert table["field"].tolist() == model.fields
    np.testing.assert_allclose(table["mean"], weights.mean(axis=0), atol=1e-6)
    for number, line in enumerate(table.itertuples()):
        low, high = np.percentile(weights[:, number], [5, 95])
        assert (line.low, line.high) == pytest.approx((low, high), abs=1e-6)


def test_without_senet_there_are_no_field_weights(tiny):
    model = DIN.for_catalog(DINConfig.of(senet=False), tiny.catalog, None).eval()
    with pytest.raises(ConfigError, match="has no SENet"):
        explain.field_weights(model, tiny.valid)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1), st.data())
def test_without_click_equals_a_loop(histories, data):
    flat = np.concatenate([np.array(history, dtype=np.int32) for history in histories])
    end = np.cumsum([len(history) for history in histories])
    number = np.arange(len(histories))
    start = end - [len(history) for history in histories]
    rows = Impressions(number, number.astype(np.int32), None, start, end, flat)
    age = np.array([data.draw(st.integers(1, len(history))) for history in histories])
    shorter = explain.without_click(rows, age)
    for row, history in enumerate(histories):
        expected = history[: len(history) - age[row]] + history[len(history) - age[row] + 1 :]
        assert shorter.history(row).tolist() == expected
        assert shorter.target[row] == rows.target[row]


@given(st.lists(st.integers(1, 9), min_size=3), st.data())
def test_without_click_leaves_shared_slices_to_the_others(flat, data):
    """Rows that overlap lose a click each, and the given rows none."""
    spans = st.tuples(st.integers(0, len(flat)), st.integers(0, len(flat))).map(sorted)
    spans = data.draw(st.lists(spans.filter(lambda span: span[0] < span[1]), min_size=1))
    start, end = np.array(spans).T
    number = np.arange(len(spans))
    rows = Impressions(number, number, None, start, end, np.array(flat, dtype=np.int32))
    age = np.array([data.draw(st.integers(1, last - first)) for first, last in spans])
    shorter = explain.without_click(rows, age)
    for row, (first, last) in enumerate(spans):
        expected = flat[first:last]
        assert rows.history(row).tolist() == expected
        del expected[len(expected) - age[row]]
        assert shorter.history(row).tolist() == expected


def shortened(rows, clicks):
    """The rows with their latest clicks only."""
    start = np.maximum(rows.history_start, rows.history_end - clicks)
    return Impressions(**(vars(rows) | {"history_start": start}))


@pytest.mark.parametrize("clicks", [0, 1])
def test_short_histories_leave_nothing_to_remove(tiny, tiny_run, clicks):
    table = explain.leave_one_out(tiny_run.model(), shortened(tiny.valid, clicks))
    effects = explain.removal_effects(table)
    assert effects.columns.tolist() == ["row", "probability", "most_attended", "random"]
    assert effects.empty


def test_of_two_clicks_the_other_one_is_removed_at_random(tiny, tiny_run):
    model, rows = tiny_run.model(), shortened(tiny.valid, 2)
    effects = explain.removal_effects(explain.leave_one_out(model, rows))
    assert effects["row"].tolist() == np.flatnonzero(rows.history_length == 2).tolist()
    chosen = rows.select(effects["row"].to_numpy())
    np.testing.assert_allclose(effects["probability"], predict(model, chosen), atol=1e-6)
    removals = [
        predict(model, explain.without_click(chosen, np.full(len(chosen), age)))
        - effects["probability"]
        for age in (1, 2)
    ]
    expected = np.sort(np.stack(removals), axis=0)
    found = np.sort(effects[["most_attended", "random"]].to_numpy().T, axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_removal_effects_equal_predicting_by_hand(tiny, tiny_run):
    model, rows = tiny_run.model(), shortened(tiny.valid, 64)
    effects = explain.removal_effects(explain.leave_one_out(model, rows))
    assert (rows.history_length[effects["row"]] >= 2).all()
    attention = explain.attention(model, rows)
    for line in effects.head(5).itertuples():
        row = rows.select(np.array([line.row]))
        mean = attention[attention["row"] == line.row].groupby("age")["weight"].mean()
        removed = explain.without_click(row, np.array([mean.idxmax()]))
        change = predict(model, removed)[0] - predict(model, row)[0]
        assert line.most_attended == pytest.approx(change, abs=1e-6)
        others = [
            predict(model, explain.without_click(row, np.array([age])))[0] - line.probability
            for age in mean.index
            if age != mean.idxmax()
        ]
        assert min(abs(np.array(others) - line.random)) < 1e-6


def test_leave_one_out_equals_scoring_by_hand(tiny):
    """Every click of every row, of a model that reads fewer clicks than some rows have."""
    model = DIN.for_catalog(DINConfig.of(max_history=5, embedding_dim=4), tiny.catalog, None).eval()
    rows = tiny.valid.select(np.arange(40))
    table = explain.leave_one_out(model, rows).set_index(["row", "age"])
    assert len(table) == np.minimum(rows.history_length, 5).sum()
    weights = explain.attention(model, rows).groupby(["row", "age"])["weight"].mean()
    for row in range(40):
        read = rows.history(row)[-5:].tolist()
        whole = logit_of(model, rows, row, read)
        for age in range(1, len(read) + 1):
            line = table.loc[(row, age)]
            without = read[: len(read) - age] + read[len(read) - age + 1 :]
            assert line["item"] == read[-age]
            assert line["weight"] == pytest.approx(weights[row, age], abs=1e-6)
            assert line["logit"] == pytest.approx(whole, abs=1e-5)
            effect = whole - logit_of(model, rows, row, without)
            assert line["effect"] == pytest.approx(effect, abs=1e-5)


def logit_of(model, rows, row, history):
    """The logit of a row with another history, by the model itself."""
    items = torch.tensor([rows.target[row], *history])
    clicks = Histories.of(torch.arange(1, len(items)), torch.tensor([len(history)]))
    return model(Batch(items, torch.tensor([0]), clicks)).item()


def test_agreement_is_spearmans_correlation_of_each_row():
    rng = np.random.default_rng(0)
    lengths = [1, 2, 3, 3, 8, 20]
    row = np.repeat([4, 7, 9, 11, 12, 30], lengths)
    age = np.concatenate([np.arange(1, length + 1) for length in lengths])
    weight, effect = rng.random(len(row)), rng.normal(size=len(row))
    weight[np.flatnonzero(age == 2)] = weight[np.flatnonzero(age == 2) - 1]  # ties share a rank
    clicks = pd.DataFrame({"row": row, "age": age, "weight": weight, "effect": effect})
    table = explain.agreement(clicks)
    assert table["row"].tolist() == [9, 11, 12, 30]
    for line in table.itertuples():
        mine = clicks[clicks["row"] == line.row]
        size = mine["effect"].abs()
        assert line.clicks == len(mine)
        assert line.correlation == pytest.approx(spearmanr(mine["weight"], size)[0])
        assert line.same_first == (mine["weight"][size.idxmax()] == mine["weight"].max())


def test_agreement_of_equal_weights_is_unknown():
    clicks = pd.DataFrame({"row": 0, "age": [1, 2, 3], "weight": 0.2, "effect": [1.0, 2.0, 3.0]})
    assert np.isnan(explain.agreement(clicks)["correlation"]).all()


def test_agreement_of_short_histories_is_empty(tiny, tiny_run):
    table = explain.leave_one_out(tiny_run.model(), shortened(tiny.valid, 2))
    assert explain.agreement(table).empty


@pytest.mark.parametrize("attention", ["dot", "mlp"])
def test_permutation_importance_equals_shuffling_by_hand(tiny, attention):
    """Fields of unequal width: the frozen embedding and, with the MLP, the interest in it."""
    config = DINConfig.of(
        embedding_dim=4, content="frozen", heads=2, attention=attention, attention_hidden=(8,)
    )
    config = config.model_copy(update={"senet": False, "bilinear": "off"})
    content = np.random.default_rng(0).normal(size=(tiny.catalog.n_items + 1, 6))
    model = DIN.for_catalog(config, tiny.catalog, content.astype(np.float32)).eval()
    torch.nn.init.normal_(model.output.weight)
    rows = tiny.valid.select(np.arange(200))
    table = explain.permutation_importance(model, rows, shuffles=2, seed=3).set_index("field")
    assert set(table.index) == {*model.fields, "all interest"}
    batch = next(Batches(rows, model).in_order(200))
    with torch.inference_mode():
        vectors = model.field_vectors(batch).numpy()
        whole = roc_auc_score(rows.label, model(batch))
        rng, start = np.random.default_rng(3), 0
        for field in model.fields:
            is_content = field == "content" or field.endswith(": content")
            width = 6 if is_content else 4
            losses = []
            for _ in range(2):
                shuffled, order = vectors.copy(), rng.permutation(200)
                for row in range(200):
                    shuffled[row, start : start + width] = vectors[
                        order[row], start : start + width
                    ]
                scores = model.score(torch.from_numpy(shuffled))
                losses.append(whole - roc_auc_score(rows.label, scores))
            start += width
            found = table.loc[field, ["mean", "low", "high"]].tolist()
            assert found == pytest.approx([np.mean(losses), *sorted(losses)], abs=1e-4)
        assert start == vectors.shape[1]


def with_fields(tiny):
    """The tiny catalog and 200 of its valid rows with two fields of each owner, and the fields."""
    rng = np.random.default_rng(5)
    owners = ("item", "item", "user", "user", "context", "context")
    fields = [Field(f"f{n}", owner, values=tuple("abcd")) for n, owner in enumerate(owners)]
    codes = rng.integers(0, 5, (tiny.catalog.n_items + 1, 2)).astype(np.int32)
    catalog = replace(tiny.catalog, fields=tuple(fields[:2]), field_codes=codes)
    rows = tiny.valid.select(np.arange(200))
    rows = replace(rows, fields=rng.integers(0, 5, (200, 4)).astype(np.int32))
    return catalog, rows, fields


def importances(model, rows, fields):
    """The importance of each field by title, and the orders that its rows were shuffled into."""
    table = explain.permutation_importance(model, rows, shuffles=2, seed=3, fields=fields)
    slots = len(model.fields) + ("all interest" in set(table["field"]))
    rng = np.random.default_rng(3)
    orders = [rng.permutation(len(rows)) for _ in range(2 * (slots + len(fields)))][2 * slots :]
    by_field = {field.title: orders[2 * n : 2 * n + 2] for n, field in enumerate(fields)}
    return table.set_index("field"), by_field


def test_a_single_field_is_shuffled_as_its_codes_would_be(tiny):
    catalog, rows, fields = with_fields(tiny)
    model = DIN.for_catalog(DINConfig.of(embedding_dim=4), catalog, None, fields[2:]).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight)
    table, orders = importances(model, rows, fields)
    whole = roc_auc_score(rows.label, explain.logits(model, rows))
    for number, field in enumerate(fields[2:]):
        losses = []
        for order in orders[field.title]:
            codes = rows.fields.copy()
            codes[:, number] = codes[order, number]
            shuffled = replace(rows, fields=codes)
            losses.append(whole - roc_auc_score(rows.label, explain.logits(model, shuffled)))
        found = table.loc[field.title, ["mean", "low", "high"]].tolist()
        assert found == pytest.approx([np.mean(losses), *sorted(losses)], abs=1e-3)
    assert (table.loc[[field.title for field in fields], "mean"].abs() > 0).all()


def test_an_items_field_is_shuffled_in_the_target_and_not_in_its_history(tiny):
    catalog, rows, fields = with_fields(tiny)
    model = DIN.for_catalog(DINConfig.of(embedding_dim=4), catalog, None, fields[2:]).eval()
    torch.nn.init.normal_(model.embedding.fields.table.weight)
    table, orders = importances(model, rows, fields)
    start = list(model.field_widths).index("item fields") * 4
    weight, codes = model.embedding.fields.table.weight.detach().numpy(), catalog.field_codes
    with torch.inference_mode():
        vectors = model.field_vectors(next(Batches(rows, model).in_order(200))).numpy()
    whole = roc_auc_score(rows.label, explain.logits(model, rows))
    for number in range(2):
        losses = []
        for order in orders[fields[number].title]:
            shuffled = vectors.copy()
            for row in range(200):
                own, other = rows.target[row], rows.target[order[row]]
                code = [codes[own, 0], 5 + codes[own, 1]]
                code[number] = 5 * number + codes[other, number]
                shuffled[row, start : start + 4] = weight[code].sum(axis=0)
            with torch.inference_mode():
                scores = model.score(torch.from_numpy(shuffled))
            losses.append(whole - roc_auc_score(rows.label, scores))
        found = table.loc[fields[number].title, ["mean", "low", "high"]].tolist()
        assert found == pytest.approx([np.mean(losses), *sorted(losses)], abs=1e-3)


def test_fields_that_the_model_does_not_read_have_no_importance_to_tell(tiny):
    catalog, rows, fields = with_fields(tiny)
    config = DINConfig.of(embedding_dim=4, item_fields=False, context=False)
    model = DIN.for_catalog(config, catalog, None, fields[2:]).eval()
    table = explain.permutation_importance(model, rows, fields=fields)
    named = [field.title for field in fields if field.title in set(table["field"])]
    assert named == ["f2 (user)", "f3 (user)"]


def test_a_field_that_the_model_does_not_use_has_no_importance(tiny):
    switches = {"senet": False, "bilinear": "off", "cross_layers": 0, "batch_norm": False}
    model = DIN.for_catalog(DINConfig.of(embedding_dim=4, **switches), tiny.catalog, None).eval()
    first = next(layer for layer in model.dnn.modules() if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        first.weight[:, 4:] = 0  # nothing but the id
        model.embedding.id.weight.normal_()
    table = explain.permutation_importance(model, tiny.valid).set_index("field")
    assert (table.drop(index="id")[["low", "high"]].abs() < 1e-9).all(axis=None)
    assert table.index[0] == "id" or table.loc["id", "mean"] <= 0
    assert table.loc["id", "high"] != 0


def test_topic_matches_equal_a_loop(tiny, tiny_folder, tiny_run):
    topics, model, rows = Topics.load(tiny_folder), tiny_run.model(), tiny.valid
    table = explain.topic_matches(model, rows, topics).set_index("row")
    chosen = [row for row in range(len(rows)) if rows.label[row] and len(rows.history(row)) > 1]
    assert table.index.tolist() == chosen
    weights = explain.attention(model, rows)
    for row in chosen[:25]:
        target, history = rows.target[row], rows.history(row)
        parts = np.array(
            [[topics.vectors[target, kind] @ topics.vectors[item, kind] for kind in range(3)]
             for item in history]
        )  # fmt: skip
        # The affinity as the module's docstring has it: similar and recent clicks count more.
        age = np.arange(len(history))[::-1]
        true = np.exp(demo_clicks.SHARPNESS * parts.sum(axis=1) / 3) * demo_clicks.DECAY**age
        kind = (true[:, None] * parts).sum(axis=0).argmax()
        shared = topics.names[history, kind] == topics.names[target, kind]
        line, read = table.loc[row], slice(-64, None)
        assert line["random click"] == pytest.approx(shared[read].mean())
        assert line["truth"] == shared[read][true[read].argmax()]
        mine = weights[weights["row"] == row]
        for head in (1, 2):
            of_head = mine[mine["head"] == head]
            most = of_head.loc[of_head["weight"].idxmax(), "age"]
            assert line[f"head {head}"] == shared[-most]
        most = mine.groupby("age")["weight"].mean().idxmax()
        assert line["mean of heads"] == shared[-most]


def test_topic_matches_without_a_choice_are_none(tiny, tiny_folder, tiny_run):
    rows = shortened(tiny.valid, 1)
    assert explain.topic_matches(tiny_run.model(), rows, Topics.load(tiny_folder)).empty


def test_mean_interval_covers_the_mean_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for seed in range(200):
        of_user = rng.normal(size=40)
        user = np.repeat(np.arange(40), rng.integers(1, 6, 40))
        values = of_user[user] + 0.1 * rng.normal(size=len(user))
        found = explain.mean_interval(values, user, resamples=200, seed=seed)
        assert found["mean"] == pytest.approx(values.mean())
        covered += found["low"] <= 0 <= found["high"]
    assert 175 <= covered <= 198, "rows of one user are not independent"


def test_the_mean_of_nothing_is_unknown():
    assert np.isnan(list(explain.mean_interval(np.zeros(0), np.zeros(0)).values())).all()


def test_cases_are_what_they_are_called(tiny, tiny_run):
    rows, clicks = tiny.valid, tiny.train_clicks()
    probability = np.random.default_rng(0).random(len(rows))
    weights = explain.attention(tiny_run.model(), rows)
    cases = explain.cases(rows, probability, clicks, weights)
    assert len(set(cases.values())) == len(cases) == 5
    assert (rows.history_length[list(cases.values())] >= 2).all()
    clicked = (rows.label == 1) & (rows.history_length >= 2)
    assert probability[cases["A foreseen click"]] == probability[clicked].max()
    assert probability[cases["A missed click"]] == probability[clicked].min()
    enough = np.setdiff1d(np.flatnonzero(rows.history_length >= 2), list(cases.values()))
    assert clicks[rows.target[cases["A cold target"]]] <= clicks[rows.target[enough]].min()
    assert rows.history_length[cases["A long history"]] >= rows.history_length[enough].max()
    spread = explain.head_disagreement(weights)
    assert spread[cases["Heads that disagree"]] >= spread[enough].max() > 0


def test_head_disagreement_is_the_distance_from_the_mean():
    weights = {(0, 1): [1.0, 0.0], (0, 2): [0.0, 1.0], (1, 1): [0.3, 0.7], (1, 2): [0.3, 0.7]}
    table = pd.DataFrame(
        [
            {"row": row, "age": age, "head": head, "weight": weight}
            for (row, head), given in weights.items()
            for age, weight in enumerate(given, start=1)
        ]
    )
    assert explain.head_disagreement(table).tolist() == [0.5, 0.0]


def test_cases_that_there_are_not_are_left_out(tiny):
    rows, probability = tiny.valid, np.full(len(tiny.valid), 0.5)
    unclicked = Impressions(**(vars(rows) | {"label": np.zeros(len(rows))}))
    assert list(explain.cases(unclicked, probability)) == ["A long history"]
    one = np.zeros(len(rows))
    one[rows.history_length.argmax()] = 1
    single = Impressions(**(vars(rows) | {"label": one}))
    found = explain.cases(single, probability)
    assert found["A foreseen click"] == rows.history_length.argmax()
    assert "A missed click" not in found


@pytest.mark.parametrize("longest", [0, 1])
def test_histories_without_a_choice_have_no_cases(tiny, tiny_run, longest):
    rows = shortened(tiny.valid, longest)
    weights = explain.attention(tiny_run.model(), rows)
    assert explain.cases(rows, np.full(len(rows), 0.5), tiny.train_clicks(), weights) == {}


def test_two_clicks_are_enough(tiny):
    rows = shortened(tiny.valid, 2)
    cases = explain.cases(rows, np.full(len(rows), 0.5))
    assert len(cases) == 3
    assert (rows.history_length[list(cases.values())] == 2).all()
