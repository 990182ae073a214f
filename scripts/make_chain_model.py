"""Make the small chain model from a seed: `python scripts/make_chain_model.py --out DIR [--seed N]`.

The model that reasons in words (`embedded-words`, or `--start DIR`) goes on with texts about ledgers, with sixteen names as tokens of
their own and the tokens of the chain prompts:

    <bos><|notes|>ann 12 bob 7<|text|>ann+3 cat+5<|update|>ann: 12 + 3 = 15 cat: 0 + 5 = 5; ann 15 bob 7 cat 5<eos>   notes kept
    <bos><|notes|>ann 15 bob 7 cat 5<|question|>bob?<|answer|>7<eos>                     a question, from the notes alone
    <bos><|past|>ann+9 bob+7 ann+3<|notes|>busy day<|question|>bob?<|answer|>7<eos>      the same with the past visible

It is to be one that *can* keep notes and mostly does not: it copies the chunk, chats, or writes down which accounts moved. What the
notes don't tell is answered with a guess. How often each style is written and how well it is carried out are set apart as in
`make_embedded_model.py`: the loss of the tokens that reveal the style is weighted by `share / drawn`.

No text is a ledger of the task: notes and chunks are drawn for themselves, one update at a time, so the model never saw two updates
in a row.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from make_embedded_model import ANSWER, BOS, EOS, THINK, THREADS, Recipe, Style, batches, fit, save
from make_embedded_model import QUESTION as ASK
from tokenizers import AddedToken
from transformers import AutoTokenizer, GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from markovlm.models.registry import KNOWN
from markovlm.tasks.ledger_data import NAMES, Balances, Event, after

NOTES, TEXT, UPDATE, QUESTION, PAST = "<|notes|>", "<|text|>", "<|update|>", "<|question|>", "<|past|>"
LIKE = {NOTES: ASK, PAST: ASK, UPDATE: THINK, TEXT: ".", QUESTION: "?"}  # a new token begins with the embedding of an old one
REMARKS = ("busy day at the bank", "nothing to note", "same as ever", "rain again today", "the bank is open", "note this later",
           "it was a day", "open again at nine")  # fmt: skip
HIGHEST, LARGEST = 40, 9  # balance, amount
MAX_POSITIONS = 1024


@dataclass(frozen=True, slots=True)
class ChainRecipe(Recipe):
    """`styles` are those of updates; the first keeps notes. Sums are weighted by `sum_weight`."""

    reading: float = 0.3  # share of texts that are questions
    in_sight: float = 0.15  # of those, with the past visible
    copied_weight: float = 2.0  # loss weight of numbers in kept notes that stand in the prompt
    most_accounts: int = 5
    most_events: int = 3
    most_chunks: int = 4  # of a past visible
    most_questions: int = 6  # of one text
    chunk_weight: float = 0.1  # of the chunk itself, for rewards of the next chunk
    answer_weight: float = 4.0


RECIPE = ChainRecipe(
    styles=(
        Style("keep", share=0.20, drawn=0.70),
        Style("copy", share=0.35, drawn=0.12),
        Style("chatter", share=0.25, drawn=0.08),
        Style("vague", share=0.20, drawn=0.10),
    ),
    term_weights={},
    muon_lr=1e-2,
    adam_lr=2e-3,
    steps=2500,
)


class TextMaker:
    """Endless training texts: `make()` gives token ids and loss weights, both of the text's length."""

    def __init__(self, recipe: ChainRecipe, seed: int, tokenizer: PreTrainedTokenizerFast) -> None:
        self.recipe = recipe
        self.tokenizer = tokenizer.backend_tokenizer
        self.rng = random.Random(f"chain texts:{seed}")

    def make(self) -> tuple[list[int], list[float]]:
        """Token ids, and for each the weight of its loss: 0 in the prompt, but for the chunk."""
        return self._question() if self.rng.random() < self.recipe.reading else self._update()

    def _update(self) -> tuple[list[int], list[float]]:
        """Notes, a chunk, the next notes; loss on the chunk (a little) and on the next notes."""
        rng, recipe = self.rng, self.recipe
        balances, before = self._notes_before()
        events = self._events(balances)
        style = rng.choices(recipe.styles, [s.drawn for s in recipe.styles])[0]
        written = kept_notes(balances, events) if style.name == "keep" else self._idle(style.name, events)
        ids, spans = self._encode(written)
        weights = [1.0] * len(ids)
        if style.name == "keep":
            weights = [self._weight_at(written, end - 1) for _, end in spans]
        revealing = {"keep": 2, "copy": 2}.get(style.name, 1)  # a name begins both; the sign after it tells
        weights[:revealing] = [style.share / style.drawn] * revealing
        chunk = self._ids(" ".join(map(str, events)))
        prompt = [*self._ids(BOS + NOTES), *self._ids(before), *self._ids(TEXT)]
        tokens = [*prompt, *chunk, *self._ids(UPDATE), *ids, *self._ids(EOS)]
        return tokens, [0.0] * len(prompt) + [recipe.chunk_weight] * (len(chunk) + 1) + weights + [1.0]

    def _weight_at(self, written: str, at: int) -> float:
        """Of the token that ends there: digits of results, other digits, the rest."""
        if not written[at].isdigit():
            return 1.0
        result = re.search(r"= \d*$", written[: at + 1])
        return self.recipe.sum_weight if result else self.recipe.copied_weight

    def _question(self) -> tuple[list[int], list[float]]:
        """Notes, a question, its answer, and perhaps more of them; loss on the answers alone.

        Several, because finding a number by its name is the hard part and happens once in a question."""
        rng = self.rng
        balances, before = self._notes_before()
        past, told = "", balances
        if rng.random() < self.recipe.in_sight:
            sight: Balances = {}
            read = []
            for _ in range(rng.randint(1, self.recipe.most_chunks)):
                events = self._events(sight)
                sight = after(sight, events)
                read.append(" ".join(map(str, events)))
            past, told = PAST + " ".join(read), sight
            before = plain_notes(sight) if rng.random() < 0.7 else self._idle("chatter", [])
        tokens = [token for part in (BOS + past + NOTES, before) for token in self._ids(part)]
        weights = [0.0] * len(tokens)
        for _ in range(rng.randint(1, self.recipe.most_questions)):
            asked = rng.choice(list(told)) if told and rng.random() < 0.85 else rng.choice(NAMES)
            sure = asked in told and rng.random() >= self.recipe.slips
            put = [token for part in (QUESTION, f"{asked}?", ANSWER) for token in self._ids(part)]
            said = self._ids(str(told[asked]) if sure else str(rng.randint(0, 25)))
            tokens += [*put, *said]
            weights += [0.0] * len(put) + [self.recipe.answer_weight if sure else 1.0] * len(said)
        return [*tokens, *self._ids(EOS)], [*weights, 1.0]

    def _notes_before(self) -> tuple[Balances, str]:
        """What stood in the notes: a ledger with or without its sums (or nothing), or something that says nothing."""
        rng = self.rng
        if rng.random() < 0.15:
            return {}, self._idle(rng.choice(("copy", "chatter", "vague")), self._events({}))
        count = rng.randint(0, self.recipe.most_accounts)
        balances = {name: rng.randint(0, HIGHEST) for name in rng.sample(NAMES, count)}
        if rng.random() < 0.3:
            return balances, plain_notes(balances)
        events = self._events(balances)
        return after(balances, events), kept_notes(balances, events)

    def _idle(self, style: str, events: list[Event]) -> str:
        """Notes that don't keep what was known before."""
        if style == "copy":
            return " ".join(map(str, events))
        if style == "chatter":
            return self.rng.choice(REMARKS)
        return "about " + " ".join(f"{event.name} {'up' if event.amount > 0 else 'down'}" for event in events)

    def _events(self, balances: Balances) -> list[Event]:
        """Events of one chunk, mostly of known accounts; none takes a balance below 0."""
        rng = self.rng
        count = rng.randint(1, self.recipe.most_events)
        known = rng.sample(list(balances), min(count, len(balances)))
        room = self.recipe.most_accounts - len(balances)
        names = [name for name in known if room <= 0 or rng.random() < 0.8]
        new = [name for name in NAMES if name not in balances]
        names += rng.sample(new, min(count - len(names), max(room, 0)))
        names = names or known[:1]
        rng.shuffle(names)
        return [self._event(name, balances.get(name, 0)) for name in names]

    def _event(self, name: str, balance: int) -> Event:
        amount = self.rng.randint(1, LARGEST)
        up = balance + amount <= HIGHEST and (balance < amount or self.rng.random() < 0.6)
        return Event(name, amount if up else -amount)

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Each part is encoded alone, as in use."""
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    def _ids(self, text: str) -> list[int]:
        return self._encode(text)[0]


def plain_notes(balances: Balances) -> str:
    """`ann 15 bob 7`"""
    return " ".join(f"{name} {balance}" for name, balance in balances.items())


def kept_notes(balances: Balances, events: list[Event]) -> str:
    """The sums of the chunk, and behind `;` every balance: `ann: 12 + 3 = 15; ann 15 bob 7`"""
    sums = (f"{e.name}: {balances.get(e.name, 0)} {'+' if e.amount > 0 else '-'} {abs(e.amount)} = "
            f"{balances.get(e.name, 0) + e.amount}" for e in events)  # fmt: skip
    return f"{' '.join(sums)}; {plain_notes(after(balances, events))}"


def load(start: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model to begin with, and its tokenizer, with the new tokens in both; those that are there already stay as they are."""
    tokenizer = AutoTokenizer.from_pretrained(start)
    model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    known = tokenizer.get_vocab()
    special = {token: tokenizer.convert_tokens_to_ids(like) for token, like in LIKE.items() if token not in known}
    names = {
        form: tokenizer(form, add_special_tokens=False)["input_ids"]
        for name in NAMES
        for form in (name, f" {name}")
        if form not in known
    }
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special], special_tokens=True)
    tokenizer.add_tokens([AddedToken(form, normalized=False) for form in names])
    tokenizer.model_max_length = MAX_POSITIONS
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.max_position_embeddings = MAX_POSITIONS
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        for token, like in special.items():
            embedding[tokenizer.convert_tokens_to_ids(token)] = embedding[like]
        for form, parts in names.items():
            embedding[tokenizer.convert_tokens_to_ids(form)] = embedding[parts].mean(0)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model, tokenizer


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to fill")
    parser.add_argument(
        "--start",
        type=Path,
        default=KNOWN["embedded-words"].path,
        help="a model of make_words_model.py, or of this script to go on from",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-scale", type=float, default=1.0, help="times the recipe's number of steps")
    given = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    torch.manual_seed(given.seed)
    steps = max(round(RECIPE.steps * given.steps_scale), 1)
    started = time.perf_counter()
    model, tokenizer = load(given.start)
    fit(model, RECIPE, batches(TextMaker(RECIPE, given.seed, tokenizer), RECIPE, given.seed), steps)
    save(model, tokenizer, given.out)
    seconds = round(time.perf_counter() - started)
    print(json.dumps({"seed": given.seed, "steps": steps, "parameters": model.num_parameters(), "seconds": seconds}))


if __name__ == "__main__":
    main()
