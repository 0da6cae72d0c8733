"""mmctr: a research workbook for multimodal click-through-rate prediction."""

import os

# Threads that spin while they wait make training ten times slower as soon as another process wants
# a core. OpenMP reads this when torch or scikit-learn is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Ragged batches have new shapes at every step, and oneDNN, which multiplies matrices, would keep
# code and buffers for the last 1,024 of them: 1.7 GB that are hardly ever used again.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
os.environ.setdefault("LRU_CACHE_CAPACITY", "32")

__version__ = "0.1.0"
