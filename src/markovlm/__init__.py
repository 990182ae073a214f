"""Train language models whose chain of thought carries the whole answer, and measure that it does."""

__version__ = "0.1.0"
