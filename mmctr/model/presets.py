"""Presets: parameters of model and training that differ from the default, by name."""

# What none of the published systems has.
PLAIN = {"identity_dropout": 0.0, "averaging": 0.0, "fresh_negatives": False}
# The original DIN's, with the baseline's sizes.
ORIGINAL_ATTENTION = {
    "attention": "mlp",
    "heads": 1,
    "attention_hidden": (512, 256),
    "attention_dropout": 0.1,
}
NO_PRODUCTS = {"senet": False, "bilinear": "off", "cross_layers": 0}
# Parameters that differ from the default: "paper" has all modules of arXiv 2504.18961 and none of
# ours, "din" is the challenge's official baseline, "momo" (arXiv 2505.03543) its winner, "qin"
# (arXiv 2504.17699) its second, "mmctrers" the team of that name, "vq" a later entry that reads
# codes (of strategy v6) instead of a dense vector. The last four have the sizes and the training of
# their public code, "-small" a quarter of the widths, for machines without a GPU: momo's cross
# network alone has 250 million weights.
PRESETS: dict[str, dict[str, object]] = {
    "default": {},
    "paper": {
        "senet": True,
        "cross_layers": 2,
        "recency": False,
        **PLAIN,
    },
    "din": {
        "embedding_dim": 64,
        "content_dim": 128,
        **ORIGINAL_ATTENTION,
        "levels_in_history": False,
        "hidden": (1024, 512, 256),
        "dropout": 0.1,
        "learning_rate": 1e-3,
        "batch_size": 8192,
        "embedding_l2": 1e-6,
        **NO_PRODUCTS,
        **PLAIN,
    },
    "momo": {
        "embedding_dim": 64,
        "content_dim": 128,
        "attention": "transformer",
        "heads": 1,
        "attention_layers": 2,
        "attention_hidden": (256,),
        "attention_dropout": 0.2,
        "last_outputs": 16,
        "levels_in_history": False,
        **NO_PRODUCTS,
        "cross_layers": 3,
        "hidden": (1024, 512, 256),
        "joined_hidden": (64, 32),
        "batch_norm": False,
        "dropout": 0.2,
        "learning_rate": 5e-4,
        "batch_size": 128,
        "embedding_l2": 0.0,
        **PLAIN,
    },
    "qin": {
        "embedding_dim": 128,
        "content_dim": 128,
        "attention": "relu",
        "heads": 1,
        "levels_in_history": False,
        **NO_PRODUCTS,
        "quadratic_layers": 4,
        "quadratic_rows": 4,
        "hidden": (),
        "dropout": 0.1,
        "learning_rate": 2e-3,
        "batch_size": 8192,
        "embedding_l2": 2e-4,
        **PLAIN,
    },
    "mmctrers": {
        "embedding_dim": 64,
        "content_dim": 128,
        **ORIGINAL_ATTENTION,
        "cross_attention": 4,
        **NO_PRODUCTS,
        "hidden": (1024, 512, 512, 256, 128, 64),
        "dropout": 0.1,
        "learning_rate": 1e-3,
        "batch_size": 4096,
        "embedding_l2": 1e-3,
        "network_l2": 0.05,
        "click_weight": 0.4,
        "pairwise": 0.2,
        **PLAIN,
    },
    "vq": {
        "embedding_dim": 64,
        **ORIGINAL_ATTENTION,
        "attention_dropout": 0.4,
        **NO_PRODUCTS,
        "hidden": (1024, 512, 256),
        "dropout": 0.3,
        "learning_rate": 1e-5,
        "batch_size": 384,
        "embedding_l2": 1e-7,
        **PLAIN,
    },
}


def _quarter(name: str, value: object) -> object:
    """A quarter of a width, or of those of several layers; other parameters as they are."""
    if name in ("embedding_dim", "content_dim", "last_outputs"):
        return value // 4
    return tuple(width // 4 for width in value) if isinstance(value, tuple) else value


PRESETS["momo-inverted"] = PRESETS["momo"] | {"inverted_mask": True}  # as its code has it
PRESETS |= {
    f"{system}-small": {name: _quarter(name, value) for name, value in PRESETS[system].items()}
    for system in ("momo", "momo-inverted", "qin", "mmctrers")
}
