"""The three ways a command can end badly, each with its exit code (DESIGN.md, "The command line")."""


class MarkovlmError(Exception):
    """Base of all errors that are reported to the user as one line, without a traceback."""

    exit_code = 1


class UserError(MarkovlmError):
    """Bad input: the message says what is wrong, where, and what would be right. Exit code 2."""

    exit_code = 2


class RunFailed(MarkovlmError):
    """The work itself failed (a loss that is not finite, a full disk, a broken check). Exit code 1."""

    exit_code = 1


# Packages that `pip install markovlm` leaves out, and `markovlm[train]` brings.
TRAINING = frozenset({
    "torch", "transformers", "peft", "accelerate", "safetensors", "datasets", "scipy", "math_verify", "gguf", "tokenizers", "huggingface_hub",
})  # fmt: skip


def missing(package: str, what: str = "this") -> UserError:
    """The message for an optional dependency that is needed but not installed."""
    return UserError(f"{what} needs {package.partition('.')[0]}, which is not installed: pip install 'markovlm[train]'")


class Note(UserWarning):
    """A warning that stops nothing: the command line prints it in one line (`markovlm: note: …`)."""


class PeerLost(RunFailed):
    """Another process of the same run is gone; that process reports the cause."""


class StopVerdict(MarkovlmError):
    """A verdict that stops: the health guard ended a run, or a diagnosis found a collapse. Exit code 3."""

    exit_code = 3
