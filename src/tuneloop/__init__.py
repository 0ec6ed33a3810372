"""tuneloop: fine-tune a language model on your examples, and prove whether the result is better."""

__version__ = "0.1.0"
