"""One text of the user's own: the sequence of states, and the answer to a question from the last one alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from markovlm.chains.prompter import chain_prompter_of
from markovlm.chains.texts import ChainText, cut_by_tokens
from markovlm.errors import UserError
from markovlm.evaluation.chains import walk_texts
from markovlm.evaluation.evaluate import how_evaluated
from markovlm.rollouts.reader import answer_decoding
from markovlm.rollouts.types import SampleRequest
from markovlm.runs.setup import Setup
from markovlm.tasks.base import Example
from markovlm.tasks.chain import Query
from markovlm.tasks.prompts import check_question, unknown_in

ASKED = "asked"  # the id of a user's question or text: its draws are keyed by it


@dataclass(frozen=True, slots=True)
class AskedChain:
    """What came of a text."""

    chunks: tuple[str, ...]
    states: tuple[str, ...]  # written after each chunk
    tokens: tuple[int, ...]  # of each state
    state_budget: int
    question: str | None = None
    answer: str | None = None


def ask_chain(setup: Setup, text: str, question: str | None = None) -> AskedChain:
    """Read `text` chunk by chunk. Raises UserError if it is empty or the run has no chain.

    Chunks have `chain.chunk_tokens` tokens if the run sets it; otherwise each line that isn't empty is one.
    """
    prompter = chain_prompter_of(setup.prompter)
    if prompter.chain.kind == "thinking":
        raise UserError("--text: this run reads no texts (chain.kind=thinking); give the question alone")
    chunks = _chunks(setup, text)
    unknown = unknown_in(setup.lm.tokenizer, " ".join(chunks))
    if unknown:
        raise UserError(f"--text: the text has words that this model does not know: {' '.join(unknown[:8])}")
    asked = None if question is None else Query(check_question(setup.lm.tokenizer, question), "0", len(chunks))
    example = Example(ASKED, " ".join(chunks), "0")
    return _walked(setup, ChainText(example, chunks, len(chunks)), question, asked)


def ask_thinking(setup: Setup, example: Example) -> AskedChain:
    """The pieces of thinking about a question, and the answer from the last one. Raises UserError for a run that reads texts."""
    prompter = chain_prompter_of(setup.prompter)
    if prompter.chain.kind != "thinking":
        raise UserError("this run reads texts in chunks: give the text with --text FILE, then a question about it")
    text = prompter.text_of(replace(example, id=ASKED))
    return _walked(setup, text, example.question, text.queries[0])


def _walked(setup: Setup, text: ChainText, question: str | None, query: Query | None) -> AskedChain:
    """The states of a text, and the greedy answer to `query` from the last one."""
    prompter, sampler = chain_prompter_of(setup.prompter), setup.sampler()
    how = how_evaluated(setup.config, prompter)
    (walk,) = walk_texts(sampler, prompter, [text], how)
    answer = None
    if query is not None:
        target = prompter.answer_target(text, query, how.conditioning)
        request = SampleRequest(target.prefix + walk.state(query.after + 1) + target.between, (("greedy answer",),))
        ((reply,),) = sampler.sample([request], answer_decoding(prompter, setup.task.max_answer_tokens))
        answer = prompter.text(reply.ids).strip()
    states, tokens = tuple(prompter.text(cot.ids) for cot in walk.written), tuple(len(cot.ids) for cot in walk.written)
    return AskedChain(text.chunks, states, tokens, prompter.cot_tokens, question, answer)


def _chunks(setup: Setup, text: str) -> tuple[str, ...]:
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise UserError("--text: the file is empty")
    size = setup.config.chain.chunk_tokens
    return cut_by_tokens(text.strip(), size, setup.lm.tokenizer, keep_rest=True) if size else lines
