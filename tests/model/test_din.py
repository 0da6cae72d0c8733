"""The assembled model: configuration, gradients, and independence of the rows of a batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmctr.data.catalog import Catalog
from mmctr.data.fields import Field
from mmctr.errors import ConfigError
from mmctr.model.attention import Histories
from mmctr.model.batch import Batch
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN

N_ITEMS, CONTENT_WIDTH, DIM = 12, 6, 4
SMALL = {
    "embedding_dim": DIM,
    "heads": 2,
    "head_dim": 3,
    "attention_hidden": (5,),
    "hidden": (7, 6),
}
BASELINE = {
    "attention": "mlp",
    "heads": 1,
    "senet": False,
    "bilinear": "off",
    "cross_layers": 0,
    "content": "frozen",
}
SWITCHES = [
    {},
    {"content": "finetuned"},
    {"attention": "mlp"},
    {"attention": "mlp", "heads": 1, "levels_in_history": False},
    {"levels_in_history": False},
    {"recency": False},
    {"senet": True, "cross_layers": 2},
    {"senet": False},
    {"bilinear": "each"},
    {"bilinear": "interaction"},
    {"bilinear": "off"},
    {"cross_layers": 0},
    {"batch_norm": False},
    {"senet": False, "bilinear": "off", "cross_layers": 0},
    {"senet": False, "bilinear": "off", "content": "frozen"},
    BASELINE,
    {"attention": "relu"},
    {"attention": "transformer", "last_outputs": 2, "senet": False, "bilinear": "off"},
    {"cross_attention": 2},
    {"quadratic_layers": 2},
    {"quadratic_layers": 1, "hidden": (), "bilinear": "off", "cross_layers": 0},
    {"joined_hidden": (5, 4)},
]
ROWS = [  # target and history of each row
    (3, [1, 2, 2]),
    (1, []),
    (12, [12]),
    (5, [4, 6, 7, 8, 1]),
    (3, [9, 10, 11]),
]


def name_of(switches):
    """A short name for a combination of switches."""
    return ",".join(f"{name}={value}" for name, value in switches.items()) or "default"


def make_model(*, content_width=CONTENT_WIDTH, **switches):
    """A small model with random weights, none of them near zero."""
    rng = np.random.default_rng(0)
    levels = rng.integers(11, size=(2, N_ITEMS + 1), dtype=np.int8)
    catalog = Catalog(
        tags=np.vstack([np.zeros((1, 3)), rng.integers(9, size=(N_ITEMS, 3))]).astype(np.int32),
        likes_level=levels[0],
        views_level=levels[1],
        titles=np.full(N_ITEMS + 1, "", dtype=object),
        covers={},
    )
    embedding = rng.normal(size=(N_ITEMS + 1, content_width)).astype(np.float32)
    embedding[0] = 0
    torch.manual_seed(1)
    config = DINConfig.of(**(SMALL | switches))
    model = DIN.for_catalog(config, catalog, embedding if content_width else None)
    with torch.no_grad():
        for table in (model.embedding.id, model.embedding.tags):
            table.weight[1:] *= 100
        for table in (model.embedding.likes_level, model.embedding.views_level):
            table.weight *= 100
    return model


def make_batch(rows, items=None):
    """A batch of (target, history) rows; items default to the distinct ones."""
    clicks = [item for _, history in rows for item in history]
    targets = [target for target, _ in rows]
    items = sorted({*clicks, *targets}) if items is None else items
    return Batch(
        items=torch.tensor(items),
        target=torch.tensor([items.index(item) for item in targets]),
        histories=Histories.of(
            torch.tensor([items.index(item) for item in clicks], dtype=torch.int64),
            torch.tensor([len(history) for _, history in rows]),
        ),
    )


def logits(model, rows):
    """The logits of rows as one batch, in evaluation mode."""
    with torch.no_grad():
        return model.eval()(make_batch(rows))


def close(found, expected):
    """Assert that tensors are equal but for rounding."""
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("switches", SWITCHES, ids=name_of)
def test_gradients_reach_every_trainable_parameter(switches):
    model = make_model(**switches, dropout=0.0, attention_dropout=0.0)
    loss = F.binary_cross_entropy_with_logits(
        model(make_batch(ROWS)), torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
    )
    loss.backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert name == "embedding.content"
            assert parameter.grad is None
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias before batch normalisation cancels out; its gradient is zero but for rounding.
        cancelled = model.config.batch_norm and name in ("dnn.0.bias", "dnn.4.bias")
        assert parameter.grad.any() or cancelled, name


@pytest.mark.parametrize("switches", SWITCHES, ids=name_of)
def test_a_rows_logit_depends_on_no_other_row(switches):
    model = make_model(**switches)
    together = logits(model, ROWS)
    assert len(together.unique()) == len(ROWS)
    close(torch.cat([logits(model, [row]) for row in ROWS]), together)
    order = [4, 2, 0, 3, 1]
    close(logits(model, [ROWS[row] for row in order]), together[order])


@pytest.mark.parametrize("switches", SWITCHES, ids=name_of)
def test_naming_an_item_twice_changes_nothing(switches):
    """The batch whose every target and click has its own place in `items`."""
    model = make_model(**switches)
    targets = [target for target, _ in ROWS]
    clicks = [item for _, history in ROWS for item in history]
    lengths = torch.tensor([len(history) for _, history in ROWS])
    batch = Batch(
        items=torch.tensor(targets + clicks),
        target=torch.arange(len(targets)),
        histories=Histories.of(torch.arange(len(clicks)) + len(targets), lengths),
    )
    with torch.no_grad():
        close(model.eval()(batch), logits(model, ROWS))


def test_items_that_no_row_names_change_nothing():
    model = make_model().eval()
    with torch.no_grad():
        close(model(make_batch(ROWS, items=list(range(N_ITEMS + 1)))), logits(model, ROWS))


def test_without_recency_the_order_of_a_history_does_not_matter_but_its_clicks_do():
    model = make_model(recency=False)
    first, permuted, other = logits(model, [(3, [1, 2, 5]), (3, [5, 1, 2]), (3, [5, 1, 4])])
    close(first, permuted)
    assert not torch.isclose(first, other, atol=1e-4)


@pytest.mark.parametrize("attention", ["dot", "mlp"])
def test_a_batch_without_any_click(attention):
    model = make_model(attention=attention)
    batch = make_batch([(3, []), (1, [])])
    found = model(batch)
    found.sum().backward()
    assert found.isfinite().all()
    assert not model.field_vectors(batch)[:, 5 * DIM :].any()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def item_vector(model, item, levels):
    """One item's fields by hand: id, mean of tags, content, levels if wanted."""
    embedding = model.embedding
    tags = [embedding.tags.weight[tag] for tag in embedding.item_tags[item].tolist() if tag]
    content = embedding.content[item]
    if embedding.projection is not None:
        content = embedding.projection.weight @ content
    fields = [
        embedding.id.weight[item],
        torch.stack(tags).mean(0) if tags else torch.zeros(DIM),
        content,
    ]
    if levels:
        likes, views = embedding.item_levels[item].tolist()
        fields += [embedding.likes_level.weight[likes], embedding.views_level.weight[views]]
    return torch.cat(fields)


@pytest.mark.parametrize("levels_in_history", [True, False])
def test_baseline_is_the_plain_din(levels_in_history):
    """Every row computed alone: MLP attention without softmax, weighted sum, DNN."""
    model = make_model(**BASELINE, levels_in_history=levels_in_history, batch_norm=False).eval()
    expected = []
    with torch.no_grad():
        for target, history in ROWS:
            query = item_vector(model, target, levels_in_history)
            interest = torch.zeros_like(query)
            for item in history:
                key = item_vector(model, item, levels_in_history)
                x = torch.cat([query, key, query - key, query * key])
                interest = interest + model.attention.rest(model.attention.first(x)) * key
            fields = torch.cat([item_vector(model, target, True), interest])
            expected.append(model.output(model.dnn(fields)))
    close(logits(model, ROWS), torch.cat(expected))


@pytest.mark.parametrize("recency", [True, False])
def test_model_is_the_papers_composition(recency):
    """Every row computed alone: attention, SENet, then bilinear with DNN beside cross network."""
    model = make_model(recency=recency, senet=True, cross_layers=2).eval()
    attention, expected = model.attention, []
    with torch.no_grad():
        for target, history in ROWS:
            vector = item_vector(model, target, True)
            interest = torch.zeros(2, DIM)
            if history:
                clicked = torch.stack([item_vector(model, item, True) for item in history])
                query = attention.query(vector).view(2, 3)
                key = attention.key(clicked).view(-1, 2, 3)
                value = attention.value(clicked).view(-1, 2, DIM)
                score = torch.einsum("hd,chd->ch", query, key) / 3**0.5
                if recency:
                    ages = range(len(history) - 1, -1, -1)
                    score = score + torch.stack([attention.recency[age] for age in ages])
                weight = score.softmax(0)
                interest = torch.einsum("ch,chd->hd", weight, value)
            fields = torch.cat([vector.view(5, DIM), interest])
            first, second = model.senet.excitation[0].weight, model.senet.excitation[2].weight
            fields = fields * (second @ (first @ fields.mean(1)).relu()).sigmoid()[:, None]
            pairs = [
                (fields[left] @ model.bilinear.weight[0]) * fields[left + gap]
                for gap in range(1, 7)
                for left in range(7 - gap)
            ]
            flat = crossed = fields.flatten()
            for layer in model.cross.layers:
                crossed = flat * layer(crossed) + crossed
            deep = model.dnn(torch.cat([flat, *pairs])[None])[0]
            expected.append(model.output(torch.cat([deep, crossed])))
    close(logits(model, ROWS), torch.cat(expected))


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({}, ["id", "tags", "content", "likes_level", "views_level", "interest 1", "interest 2"]),
        (
            {"attention": "mlp", "heads": 1, "levels_in_history": False},
            [
                *("id", "tags", "content", "likes_level", "views_level"),
                *("interest 1: id", "interest 1: tags", "interest 1: content"),
            ],
        ),
    ],
)
def test_fields_have_names(switches, expected):
    model = make_model(**switches)
    assert model.fields == expected
    assert model.field_vectors(make_batch(ROWS)).shape == (len(ROWS), len(expected) * DIM)


def test_without_an_item_embedding_there_is_no_content_field():
    model = make_model(content_width=0)
    assert "content" not in model.fields
    assert logits(model, ROWS).isfinite().all()


@pytest.mark.parametrize("attention", ["dot", "mlp"])
def test_attention_weights_have_a_row_a_click_and_a_column_a_head(attention):
    weights = make_model(attention=attention).attention_weights(make_batch(ROWS))
    assert weights.shape == (sum(len(history) for _, history in ROWS), 2)
    if attention == "dot":
        torch.testing.assert_close(weights[:3].sum(0), torch.ones(2))


def test_field_weights_are_senets():
    model = make_model()
    weights = model.field_weights(make_batch(ROWS))
    assert weights.shape == (len(ROWS), len(model.fields))
    assert ((weights > 0) & (weights < 1)).all()
    with pytest.raises(ConfigError, match="no SENet"):
        make_model(senet=False).field_weights(make_batch(ROWS))


def test_frozen_content_needs_equal_widths_or_no_field_products():
    for switch in ({"bilinear": "off"}, {"senet": False}):
        with pytest.raises(ConfigError, match="'content' has 6 columns and embedding_dim is 4"):
            make_model(content="frozen", **switch)
    model = make_model(content="frozen", content_width=DIM)
    assert logits(model, ROWS).isfinite().all()


def test_a_model_of_its_sizes_loads_the_weights():
    model = make_model()
    copy = DIN.of_sizes(model.config, **model.sizes)
    copy.load_state_dict(model.state_dict())
    assert torch.equal(logits(copy, ROWS), logits(model, ROWS))
    assert copy.n_items == N_ITEMS


FIELDS = {
    "item": [Field("brand", "item", values=("a", "b")), Field("price", "item", borders=(2.0,))],
    "user": [Field("country", "user", values=("x",))],
    "context": [Field("device", "context", values=("p", "q")), Field("hour", "context", ("0",))],
}


def with_fields(**switches):
    """A small model of items, users and context with fields, and codes of each item."""
    plain, rng = make_model(), np.random.default_rng(2)
    codes = np.vstack([np.zeros((1, 2)), rng.integers(3, size=(N_ITEMS, 2))]).astype(np.int32)
    catalog = Catalog(
        tags=plain.embedding.item_tags.numpy(),
        likes_level=plain.embedding.item_levels[:, 0].numpy(),
        views_level=plain.embedding.item_levels[:, 1].numpy(),
        titles=np.full(N_ITEMS + 1, "", dtype=object),
        covers={},
        fields=tuple(FIELDS["item"]),
        field_codes=codes,
    )
    torch.manual_seed(1)
    config = DINConfig.of(**(SMALL | switches))
    model = DIN.for_catalog(config, catalog, None, FIELDS["user"] + FIELDS["context"])
    with torch.no_grad():
        for layer in (model.embedding.fields, model.user_fields, model.context):
            if layer is not None:
                layer.table.weight.normal_()
    return model.eval(), codes


ROW_CODES = torch.tensor([[1, 2, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 1, 1]])


def test_fields_stand_where_they_belong():
    model, codes = with_fields()
    names = ["id", "tags", "item fields", "likes_level", "views_level"]
    names += ["interest 1", "interest 2", "user fields", "context"]
    assert model.fields == names
    batch = replace(make_batch(ROWS), fields=ROW_CODES)
    with torch.no_grad():
        found = model.field_vectors(batch).view(len(ROWS), len(names), DIM)
    weight = model.embedding.fields.table.weight.detach()
    for row, (target, _) in enumerate(ROWS):
        own = weight[codes[target, 0]] + weight[3 + codes[target, 1]]
        close(found[row, names.index("item fields")], own)
        user, device, hour = ROW_CODES[row].tolist()
        close(found[row, -2], model.user_fields.table.weight.detach()[user])
        context = model.context.table.weight.detach()
        close(found[row, -1], context[device] + context[3 + hour])


def test_attention_reads_the_fields_of_items_in_histories():
    model, _ = with_fields()
    batch = replace(make_batch(ROWS), fields=ROW_CODES)
    with torch.no_grad():
        before = model.attention_weights(batch)
        model.embedding.item_fields[:] = 0
        assert not torch.allclose(before, model.attention_weights(batch), atol=1e-3)


def test_fields_are_switches():
    model, _ = with_fields(item_fields=False, user_fields=False, context=False)
    assert model.fields == make_model(content_width=0).fields
    with torch.no_grad():
        close(model(make_batch(ROWS)), model(replace(make_batch(ROWS), fields=ROW_CODES)))


def test_levels_of_a_rows_time_are_the_targets_alone():
    """As if each row had a catalog of its own in which its target, and no click, has the levels."""
    model = make_model(levels_in_history=False)
    levels = torch.tensor([[1, 10], [0, 0], [7, 2], [3, 3], [10, 1]])
    rows = [(target, [item for item in history if item != target]) for target, history in ROWS]
    with torch.no_grad():
        found = model.eval()(replace(make_batch(rows), levels=levels))
        kept = model.embedding.item_levels.clone()
        for row in range(len(rows)):
            model.embedding.item_levels.copy_(kept)
            model.embedding.item_levels[rows[row][0]] = levels[row].to(torch.int8)
            close(found[row : row + 1], model(make_batch(rows[row : row + 1])))


def test_in_histories_the_levels_are_those_of_the_catalog():
    model = make_model()
    levels = torch.tensor([[1, 10], [0, 0], [7, 2], [3, 3], [10, 1]])
    batch = make_batch(ROWS)
    with torch.no_grad():
        plain = model.eval().field_vectors(batch)
        told = model.field_vectors(replace(batch, levels=levels))
        table = model.embedding(batch.items)[:, : model.history_width]
        target = model.embedding(batch.items)[batch.target]
        target[:, -2 * DIM :] = model.embedding.of_levels(levels)
        interest = model.attention(target[:, : model.history_width], table, batch.histories)
    close(told, torch.cat([target, interest], dim=1))
    assert not torch.allclose(plain, told, atol=1e-3)


@pytest.mark.parametrize("told", [False, True], ids=["levels of the catalog", "of the row"])
def test_training_hides_the_identity_of_a_share_of_the_targets_but_not_of_clicks(told):
    """A hidden row is that of a model which does not know its target, with the same history."""
    model = make_model(identity_dropout=0.3).eval()
    batch = make_batch(ROWS * 200)
    if told:
        levels = torch.tensor([[1, 10], [4, 4], [7, 2], [3, 3], [10, 1]])
        batch = replace(batch, levels=levels.repeat(200, 1))
    with torch.no_grad():
        table = model.embedding(batch.items)
        shown = model._items(batch, model.embedding.look_up(batch.items))[0]
        model.train()
        torch.manual_seed(0)
        found, clicked = model._items(batch, model.embedding.look_up(batch.items))
        model.embedding.known[:] = False
        unknown = model.eval()._items(batch, model.embedding.look_up(batch.items))[0]
    close(clicked, table)
    hidden = (found != shown).any(dim=1)
    assert abs(float(hidden.float().mean()) - 0.3) < 4 * (0.3 * 0.7 / len(batch)) ** 0.5
    close(found, torch.where(hidden[:, None], unknown, shown))
    by_row = hidden.view(200, len(ROWS))
    assert by_row.any(dim=0).all() and not by_row.all(dim=0).any(), "the same target, hidden or not"


def test_prediction_hides_the_identity_of_unknown_targets_alone():
    model, batch = make_model(identity_dropout=0.3).eval(), make_batch(ROWS)
    with torch.no_grad():
        all_known = model._items(batch, model.embedding.look_up(batch.items))[0]
        model.embedding.known[3] = False
        found = model._items(batch, model.embedding.look_up(batch.items))[0]
    differs = (found != all_known).any(dim=1).tolist()
    assert differs == [target == 3 for target, _ in ROWS]
    assert not found[differs.index(True), :DIM].any(), "an id that says nothing"
