"""Repetition in the text of a group of CoTs."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from itertools import pairwise

_PIECE = re.compile(r"[^\W\d_]{1,12}|\d|[^\w\s]|_")  # words (cut at 12 letters), single digits, single marks
_RUN = re.compile(r"(.)\1{2,}", re.DOTALL)
_CHUNK = 64  # pieces; a fixed length keeps long CoTs of digits comparable with short ones
_MIN_PIECES = 8
_MIN_BYTES = 32


def _distinct_bigrams(text: str) -> float:
    """Share of neighbouring pairs of pieces that are new within a stretch of 64 pieces; 1.0 for very short texts."""
    pieces = _PIECE.findall(text)
    if len(pieces) < _MIN_PIECES:
        return 1.0
    distinct = total = 0
    for start in range(0, len(pieces), _CHUNK):
        chunk = pieces[start : start + _CHUNK]
        if start and len(chunk) < _MIN_PIECES:
            break
        distinct += len(set(pairwise(chunk)))
        total += len(chunk) - 1
    return distinct / total


def _longest_run(text: str) -> int:
    """Length of the longest run of one character (spaces included)."""
    runs = max((len(match.group()) for match in _RUN.finditer(text)), default=0)
    if runs:
        return runs
    return 2 if any(a == b for a, b in pairwise(text)) else min(len(text), 1)


def _compression(text: str) -> float:
    """Compressed over raw bytes (deflate without header, so that short texts are not punished), at most 1.0."""
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) < _MIN_BYTES:
        return 1.0
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return min(1.0, len(packer.compress(raw) + packer.flush()) / len(raw))


def text_signals(texts: Sequence[str]) -> dict[str, float]:
    """Repetition in one group of CoTs. Empty for no texts.

    `distinct_bigram_fraction` (mean; about 0.9 in prose, 0.02 in `4444…`), `longest_char_run` (maximum, characters),
    `compression_ratio` (mean; about 0.5 in prose, 0.05 in loops), `identical_cot_fraction` (0 all different, 1 all the same).

    >>> text_signals(["4" * 150] * 4)["identical_cot_fraction"]
    1.0
    """
    n = len(texts)
    if n == 0:
        return {}
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    return {
        "distinct_bigram_fraction": sum(_distinct_bigrams(t) * k for t, k in counts.items()) / n,
        "longest_char_run": float(max(_longest_run(t) for t in counts)),
        "compression_ratio": sum(_compression(t) * k for t, k in counts.items()) / n,
        "identical_cot_fraction": (n - len(counts)) / (n - 1) if n > 1 else 0.0,
    }
