"""mmctr: a research workbook for multimodal click-through-rate prediction."""

import os

# Threads that spin while they wait make training ten times slower as soon as another process wants
# a core. OpenMP reads this when torch or scikit-learn is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
