"""Make src/markovlm/auditing/trigrams.txt: the letter triples that English words are made of, from questions of MIT-licensed data sets.

    python scripts/make_trigrams.py [../shared/data]

A triple counts where it stands in at least three different words, or in one that occurs often (`^` and `$` mark a
word's ends). `auditing/legibility.py` calls a
word that holds another triple a non-word; the test measures how often it is wrong on texts that are not in here.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

SOURCES = ("gsm8k/train.jsonl", "svamp/*.json", "arc/*", "mmlu/**/*.csv")
LEAST = 3  # words that hold a triple
OFTEN = 20  # occurrences of a word: `two` is the only one that ends in `wo`
OUT = Path(__file__).parents[1] / "src" / "markovlm" / "auditing" / "trigrams.txt"


def main(data: Path) -> None:
    """Read every text file of the sources, write the table."""
    words: Counter[str] = Counter()
    for pattern in SOURCES:
        for path in sorted(data.glob(pattern)):
            if path.is_file() and path.suffix in (".json", ".jsonl", ".csv"):
                text = path.read_text(encoding="utf-8", errors="replace").replace("\\n", " ")
                words.update(word.lower() for word in re.findall(r"(?<![\w'’-])[A-Za-z]?[a-z]{2,23}(?![\w'’-])", text))
    holders: dict[str, int] = defaultdict(int)
    for word, count in words.items():
        marked = f"^{word}$"
        for triple in {marked[i : i + 3] for i in range(len(marked) - 2)}:
            holders[triple] += LEAST if count >= OFTEN else 1
    kept = sorted(triple for triple, count in holders.items() if count >= LEAST)
    OUT.write_text(" ".join(kept) + "\n", encoding="ascii")
    print(f"{len(words)} words, {len(kept)} triples")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "shared" / "data")
