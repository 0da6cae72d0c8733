"""Presets: parameters of model and training that differ from the default, by name."""

# Parameters that differ from the default: "paper" has all modules of arXiv 2504.18961 and none of
# ours, "din" is the challenge's official baseline.
PRESETS: dict[str, dict[str, object]] = {
    "default": {},
    "paper": {
        "senet": True,
        "cross_layers": 2,
        "recency": False,
        "identity_dropout": 0.0,
        "averaging": 0.0,
        "fresh_negatives": False,
    },
    "din": {
        "embedding_dim": 64,
        "content_dim": 128,
        "attention": "mlp",
        "heads": 1,
        "attention_hidden": (512, 256),
        "attention_dropout": 0.1,
        "levels_in_history": False,
        "identity_dropout": 0.0,
        "senet": False,
        "bilinear": "off",
        "cross_layers": 0,
        "hidden": (1024, 512, 256),
        "dropout": 0.1,
        "learning_rate": 1e-3,
        "batch_size": 8192,
        "embedding_l2": 1e-6,
        "averaging": 0.0,
        "fresh_negatives": False,
    },
}
