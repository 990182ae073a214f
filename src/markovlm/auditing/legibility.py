"""Can a person read this text? Counts that need no model. Pure: text in, numbers out.

non-word          a word of four or more Latin letters, lower case but for its first, with a letter triple that English words don't
                  have (`trigrams.txt`, made by scripts/make_trigrams.py). Measured: .004 of the words of held-out GSM8K questions
                  are called that, .007 of AQuA's, .021 of Wikipedia's (names); .66 of words with shuffled letters, .94 of random ones
language switch   two neighbouring words in different scripts (Latin, Cyrillic, Han with kana, Hangul, Arabic, …); single Greek
                  letters are mathematics. A switch between languages of one script, English and German, is not seen
repetitive        `tasks.answers.is_repetitive`: it compresses to an eighth, or few of its eight-word sequences are distinct
open end          the text ends in no stop, bracket or number: of texts that a budget cut off most do, but .25 of GSM8K's own solutions too
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import pairwise

from markovlm.tasks.answers import is_repetitive

_WORD = re.compile(r"[^\W\d_]+")
_JUDGED = re.compile(r"(?<![\w'’-])[A-Za-z]?[a-z]{3,}(?![\w'’-])")
_ENDS = re.compile(r"[.!?。！？…:)\]}\"'”’»*`$%\d]\s*\Z")
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO")


@dataclass(frozen=True, slots=True)
class Legible:
    """The counts of one text."""

    words: int
    judged: int  # words that could be non-words
    nonwords: int
    switches: int
    repetitive: bool
    open_end: bool
    empty: bool


def legibility(text: str) -> Legible:
    """The counts of one text."""
    words = _WORD.findall(text)
    judged = _JUDGED.findall(text)
    scripts = [script for word in words if (script := script_of(word))]
    return Legible(
        words=len(words),
        judged=len(judged),
        nonwords=sum(map(is_nonword, judged)),
        switches=sum(a != b for a, b in pairwise(scripts)),
        repetitive=is_repetitive(text),
        open_end=bool(text.strip()) and _ENDS.search(text) is None,
        empty=not text.strip(),
    )


def is_nonword(word: str) -> bool:
    """Whether the word is not spelled like English."""
    marked = f"^{word.lower()}$"
    return any(marked[i : i + 3] not in _triples() for i in range(len(marked) - 2))


def script_of(word: str) -> str:
    """`LATIN`, `CJK`, …; empty for a lone Greek letter and for characters without a name."""
    name = unicodedata.name(word[0], "").split(" ")[0].split("-")[0]
    if name == "GREEK" and len(word) == 1:
        return ""
    return "CJK" if name in _CJK else "LATIN" if name in ("FULLWIDTH", "MODIFIER") else name


@lru_cache(maxsize=1)
def _triples() -> frozenset[str]:
    return frozenset((resources.files("markovlm.auditing") / "trigrams.txt").read_text(encoding="ascii").split())
