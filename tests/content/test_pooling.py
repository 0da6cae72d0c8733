"""Tokens become one vector as a loop over the tokens says."""

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st

from mmctr.content.defaults import POOLINGS
from mmctr.content.pooling import is_causal, pooled

BY_HAND = {
    "cls": lambda tokens: tokens[0],
    "mean": lambda tokens: tokens.mean(axis=0),
    "max": lambda tokens: tokens.max(axis=0),
    "lasttoken": lambda tokens: tokens[-1],
}


def test_every_pooling_has_a_reference():
    assert set(BY_HAND) == set(POOLINGS) - {"auto"}


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.sampled_from(list(BY_HAND)),
    st.integers(0, 9),
)
def test_padding_is_no_part_of_a_vector(lengths, pooling, seed):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(len(lengths), 5, 3)).astype(np.float32)
    mask = (np.arange(5) < np.array(lengths)[:, None]).astype(np.int64)
    found = pooled(torch.from_numpy(hidden), torch.from_numpy(mask), pooling).numpy()
    expected = [BY_HAND[pooling](row[:n]) for row, n in zip(hidden, lengths, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: hf.BertModel(hf.BertConfig(hidden_size=8, num_attention_heads=2, **SIZES)), False),
        (lambda: hf.GPT2Model(hf.GPT2Config(n_embd=8, n_head=2, n_layer=2, vocab_size=20)), True),
    ],
    ids=["bert", "gpt"],
)
def test_a_model_whose_tokens_see_nothing_of_what_follows_is_causal(model, expected):
    torch.manual_seed(0)
    assert is_causal(model().eval()) == expected


SIZES = {"num_hidden_layers": 2, "intermediate_size": 8, "vocab_size": 20}
