"""What is extracted unless another model is named: the challenge's encoders."""

TEXT_MODEL = "google-bert/bert-base-uncased"  # of transformers
IMAGE_MODEL, IMAGE_WEIGHTS = "RN50", "openai"  # of open_clip
POOLINGS = ("auto", "cls", "mean", "max", "lasttoken")  # of a title's tokens; auto: by the encoder
