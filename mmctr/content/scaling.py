"""Blocks of features brought to one scale."""

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin


class RootMeanSquareScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Divide a whole block by one number, so that its root mean square is 1.

    Angles and relative lengths within the block stay as they are; blocks of encoders with
    different scales (BERT and CLIP) become comparable, and a model sees inputs of order 1.
    """

    def fit(self, X: np.ndarray, y: None = None) -> "RootMeanSquareScaler":
        """Measure the block's root mean square."""
        self.scale_ = float(np.sqrt(np.mean(np.square(X, dtype=np.float64)))) or 1.0
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Divide by it."""
        return (X / self.scale_).astype(np.float32)
