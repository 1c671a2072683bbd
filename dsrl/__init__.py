"""dsrl: from one task definition to a trained and measured language model, with no labelled data."""

__version__ = "0.1.0"
