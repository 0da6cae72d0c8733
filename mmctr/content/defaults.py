"""What is extracted unless another model is named: the challenge's encoders."""

TEXT_MODEL = "google-bert/bert-base-uncased"  # of transformers
IMAGE_MODEL, IMAGE_WEIGHTS = "RN50", "openai"  # of open_clip
POOLINGS = ("cls", "mean")  # of a title's tokens
