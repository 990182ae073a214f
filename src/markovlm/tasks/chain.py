"""The text of a chain: chunks that are read one after another, and questions about them.

A task whose examples are `ChainExample` provides its own chunks; any other text is cut by `chain.chunk_tokens` (`markovlm.chains.texts`).
"""

from __future__ import annotations

from dataclasses import dataclass

from markovlm.tasks.base import Example


@dataclass(frozen=True, slots=True)
class Query:
    """A question about a text, asked once `after` of its chunks were read (1: after the first).

    `Query("bob?", "12", after=4, fact=2)`: the fact is in chunk 2, so the notes carried it over a distance of 2 chunks.
    """

    question: str
    answer: str
    after: int
    fact: int | None = None  # the chunk, from 1, that the answer was settled in; None: not known

    @property
    def distance(self) -> int | None:
        """Chunks between the fact and the question; 0: the fact is in the chunk just read."""
        return None if self.fact is None else self.after - self.fact


@dataclass(frozen=True, slots=True)
class ChainExample(Example):
    """A text in chunks with its questions. `question` is the text in one piece, `answer` that of the last question (or "")."""

    chunks: tuple[str, ...] = ()
    queries: tuple[Query, ...] = ()
    start: str = ""  # the notes before the first chunk


def chain_example(
    id: str, chunks: tuple[str, ...], queries: tuple[Query, ...] = (), joiner: str = "\n", start: str = ""
) -> ChainExample:
    """A `ChainExample` of these parts. Raises ValueError if a question is asked after a chunk that does not exist."""
    if not chunks or not all(chunks):
        raise ValueError("chunks: a text needs at least one chunk, and none may be empty")
    for query in queries:
        if not 1 <= query.after <= len(chunks):
            raise ValueError(f"after: {query.question!r} is asked after chunk {query.after} of {len(chunks)}")
        if query.fact is not None and not 1 <= query.fact <= query.after:
            raise ValueError(f"fact: {query.question!r}, asked after chunk {query.after}, has its fact in chunk {query.fact}")
        if not query.answer:
            raise ValueError(f"answer: {query.question!r} has no answer")
    answer = queries[-1].answer if queries else ""
    return ChainExample(id, joiner.join(chunks), answer, chunks=chunks, queries=queries, start=start)
