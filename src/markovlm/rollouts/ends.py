"""Where a CoT ends: at an end token, at a stop string, or with its budget."""

from __future__ import annotations

from collections.abc import Sequence

from markovlm.models.language import LanguageModel
from markovlm.rollouts.types import CoT, Decoding


def stop_start(lm: LanguageModel, tokens: Sequence[int], decoding: Decoding) -> int | None:
    """The index of the earliest stop string in the decoded text."""
    text = lm.tokenizer.decode(tokens)
    first = len(text) - len(text.lstrip()) if decoding.stop_after_text else 0
    found = [at for at in (text.find(s, first) for s in decoding.stop) if at >= 0]
    return min(found) if found else None


def finished(lm: LanguageModel, tokens: list[int], logps: list[float], ended: bool, decoding: Decoding) -> CoT:
    """A CoT from tokens up to and including the one that ended it."""
    kept = len(tokens)
    if ended and tokens[-1] in lm.terminators:
        kept -= 1
    elif ended:
        cut = stop_start(lm, tokens, decoding)
        assert cut is not None
        while kept and len(lm.tokenizer.decode(tokens[:kept])) > cut:
            kept -= 1
    return CoT(tuple(tokens), kept, tuple(logps), ended)


def cut_off(lm: LanguageModel, tokens: Sequence[int], logps: Sequence[float], decoding: Decoding) -> CoT:
    """A CoT from tokens that another program sampled, which may have continued after the end."""
    end = None if decoding.fixed_length else next((at for at, token in enumerate(tokens, 1) if token in lm.terminators), None)
    if decoding.stop and stop_start(lm, tokens[:end], decoding) is not None:
        end = next(at for at in range(1, len(tokens) + 1) if stop_start(lm, tokens[:at], decoding) is not None)
    return finished(lm, list(tokens[:end]), list(logps[:end]), end is not None, decoding)
