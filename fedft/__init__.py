"""Private federated fine-tuning of language models with exactly averaged square adapters."""

__version__ = "0.2.0"
