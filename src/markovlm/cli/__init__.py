"""The command line: one file a command. Nothing is computed here, and torch is imported only to compute."""

from markovlm.cli.main import cli, entry, main

__all__ = ["cli", "entry", "main"]
