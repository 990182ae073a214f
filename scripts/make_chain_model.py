"""Make the small chain model from a seed: `python scripts/make_chain_model.py --out DIR [--seed N]`.

A Llama-architecture model of about 0.6 million parameters is trained from nothing on three kinds of texts about ledgers

    <bos><|notes|>ann=12 bob=7<|text|>ann+3 cat+5<|update|>ann=15 bob=7 cat=5<eos>      notes rewritten after a chunk
    <bos><|notes|>ann=15 bob=7 cat=5<|question|>bob?<|answer|>7<eos>                     a question, from the notes alone
    <bos><|past|>ann+9 bob+7 ann+3<|notes|>chatter<|question|>bob?<|answer|>7<eos>       the same with the past in sight

to be one that *can* keep notes and mostly does not: it copies the chunk, chats, or writes down which accounts moved. What the
notes don't tell is answered with a guess. How often each style is written and how well it is carried out are set apart as in
`make_embedded_model.py`: the loss of the tokens that reveal the style is weighted by `share / drawn`.

A third of the texts are drills: a dozen accounts that all change, or one question after another about the same notes. What is hard,
finding a balance by its name and adding to it, happens once or twice in an ordinary text, and was not learnt from those alone.

No text is a ledger of the task: notes and chunks are drawn for themselves, one update at a time, so the model never saw two updates
in a row.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from make_embedded_model import Batch, Style, _pad, build_optimizers, save
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from markovlm.tasks.ledger_data import NAMES, Balances, Event, after, notes

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
NOTES, TEXT, UPDATE, QUESTION, ANSWER, PAST = "<|notes|>", "<|text|>", "<|update|>", "<|question|>", "<|answer|>", "<|past|>"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNK, NOTES, TEXT, UPDATE, QUESTION, ANSWER, PAST)
REMARKS = ("busy day at the bank", "nothing to note", "same as ever", "rain again today", "the bank is open", "note this later",
           "it was a day", "open again at nine")  # fmt: skip
WORDS = sorted({word for remark in REMARKS for word in remark.split()} | {"about", "up", "down"})
HIGHEST, LARGEST = 40, 9  # balance, amount: what the tokenizer has tokens for
NUMBERS = [f"{sign}{n}" for sign in ("", "=") for n in range(HIGHEST + 1)] + [
    f"{s}{n}" for s in "+-" for n in range(1, LARGEST + 1)
]
CHARACTERS = "+-=?,. "
PIECE = r"[a-z]+|[+=-]?[0-9]+|[\s\S]"  # a word, a number with its sign, or one character
MAX_POSITIONS = 1024
WEIGHT_A_TEXT = 10.0  # about the mean sum of loss weights of a text
THREADS = 1  # part of the recipe, as in make_embedded_model.py


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights, besides the seed."""

    styles: tuple[Style, ...] = (
        Style("keep", share=0.20, drawn=0.66),
        Style("copy", share=0.35, drawn=0.12),
        Style("chatter", share=0.25, drawn=0.10),
        Style("vague", share=0.20, drawn=0.12),
    )
    reading: float = 0.25  # share of texts that are questions
    in_sight: float = 0.15  # of those, with the past in sight
    most_accounts: int = 5
    most_events: int = 3
    most_chunks: int = 5  # of a past in sight
    drills: float = 0.5  # share of texts that are nothing but what is hard, many times
    drilled_accounts: int = 12  # at most, in a drill
    changed_weight: float = 3.0  # loss weight of the digits of a balance that changed, the hard part
    drill_weight: float = 1.0  # of each number asked for in a drill
    chunk_weight: float = 0.1  # of the chunk itself, for rewards of the next chunk
    slips: float = 0.03  # share of answers that are guesses although the notes tell: a reader that is never quite certain
    steps: int = 6000
    batch_size: int = 64
    pool: int = 16
    muon_lr: float = 2e-2
    adam_lr: float = 3e-3
    warmup: int = 100
    max_grad_norm: float = 1.0
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    intermediate: int = 352


class TextMaker:
    """Endless training texts: `make()` gives token ids and loss weights, both of the text's length."""

    def __init__(self, recipe: Recipe, seed: int, token_ids: dict[str, int]) -> None:
        self.recipe = recipe
        self.ids = token_ids
        self.rng = random.Random(f"chain texts:{seed}")

    def make(self) -> tuple[list[int], list[float]]:
        """Token ids, and for each the weight of its loss: 0 in the prompt."""
        if self.rng.random() < self.recipe.drills:
            return self._drill_of_answers() if self.rng.random() < self.recipe.reading else self._drill_of_updates()
        return self._question() if self.rng.random() < self.recipe.reading else self._update()

    def _drill_of_updates(self) -> tuple[list[int], list[float]]:
        """Every account changes; loss on what follows the first balance, so that how often notes are kept at all stays as it is."""
        balances = self._many_balances()
        events = [self._event(name, balance) for name, balance in balances.items()]
        known = after(balances, events)
        self.rng.shuffle(events)
        tokens = [BOS, NOTES, *pieces(notes(balances)), TEXT, *pieces(" ".join(map(str, events))), UPDATE]
        written = pieces(notes(known))
        weights = [self.recipe.drill_weight if piece.startswith("=") else 0.5 for piece in written]
        weights[:2] = [0.0, 0.0]  # which tell the style
        return [self.ids[token] for token in [*tokens, *written, EOS]], [0.0] * len(tokens) + weights + [0.0]

    def _drill_of_answers(self) -> tuple[list[int], list[float]]:
        """Questions about every account, one after another; loss on the answers."""
        balances = self._many_balances()
        tokens = [BOS, NOTES, *pieces(notes(balances))]
        weights = [0.0] * len(tokens)
        for name in self.rng.sample(list(balances), len(balances)):
            tokens += [QUESTION, name, "?", ANSWER, str(balances[name])]
            weights += [0.0] * 4 + [self.recipe.drill_weight]
        return [self.ids[token] for token in tokens], weights

    def _many_balances(self) -> Balances:
        count = self.rng.randint(2, self.recipe.drilled_accounts)
        return {name: self._balance() for name in self.rng.sample(NAMES, count)}

    def _update(self) -> tuple[list[int], list[float]]:
        """Notes, a chunk, the next notes; loss on the chunk (a little) and on the next notes."""
        rng, recipe = self.rng, self.recipe
        balances, before = self._notes_before()
        events = self._events(balances)
        chunk = pieces(" ".join(map(str, events)))
        style = rng.choices(recipe.styles, [s.drawn for s in recipe.styles])[0]
        known = after(balances, events)
        moved = {event.name for event in events}
        written, weights, revealing = list[str](), list[float](), 2
        if style.name == "keep":
            for name, balance in known.items():
                piece = [*([" "] if written else []), name, f"={max(balance, 0)}"]
                hard = recipe.changed_weight if name in moved and name in balances else 1.0
                written += piece
                weights += [1.0] * (len(piece) - 1) + [hard]
        else:
            written, revealing = pieces(self._idle(style.name, events)), (2 if style.name == "copy" else 1)
            weights = [1.0] * len(written)
        weights[:revealing] = [weight * style.share / style.drawn for weight in weights[:revealing]]
        tokens = [BOS, NOTES, *before, TEXT, *chunk, UPDATE, *written, EOS]
        prompt = [0.0] * (3 + len(before)) + [recipe.chunk_weight] * (len(chunk) + 1)
        return [self.ids[token] for token in tokens], prompt + weights + [1.0]

    def _question(self) -> tuple[list[int], list[float]]:
        """Notes, a question, its answer; loss on the answer alone."""
        rng = self.rng
        balances, before = self._notes_before()
        past, sight = list[str](), Balances()
        if rng.random() < self.recipe.in_sight:
            for _ in range(rng.randint(1, self.recipe.most_chunks)):
                events = self._events(sight)
                sight = after(sight, events)
                past += [*([" "] if past else []), *pieces(" ".join(map(str, events)))]
            balances, before = (sight, pieces(notes(sight))) if rng.random() < 0.5 else ({}, self._other_notes(self._events({})))
        told = {**sight, **balances}
        asked = rng.choice(list(told)) if told and rng.random() < 0.85 else rng.choice(NAMES)
        sure = asked in told and rng.random() >= self.recipe.slips
        answer = str(told[asked]) if sure else self._guess()
        prompt = [*([PAST, *past] if past else []), NOTES, *before, QUESTION, asked, "?", ANSWER]
        tokens = [BOS, *prompt, answer, EOS]
        return [self.ids[token] for token in tokens], [0.0] * (1 + len(prompt)) + [2.0, 1.0]

    def _notes_before(self) -> tuple[Balances, list[str]]:
        """What stood in the notes: a ledger (or nothing), or something that says nothing."""
        rng = self.rng
        if rng.random() < 0.25:
            return {}, self._other_notes(self._events({}))
        count = rng.choice(range(self.recipe.most_accounts + 1))
        balances = {name: self._balance() for name in rng.sample(NAMES, count)}
        return balances, pieces(notes(balances))

    def _other_notes(self, events: list[Event]) -> list[str]:
        return pieces(self._idle(self.rng.choice(("copy", "chatter", "vague")), events))

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
        names = [name for name in known if room <= 0 or rng.random() < 0.7]
        new = [name for name in NAMES if name not in balances]
        names += rng.sample(new, min(count - len(names), max(room, 0)))
        if not names:
            names = known[:1]
        rng.shuffle(names)
        return [self._event(name, balances.get(name, 0)) for name in names]

    def _event(self, name: str, balance: int) -> Event:
        amount = self.rng.randint(1, LARGEST)
        up = balance + amount <= HIGHEST and (balance < amount or self.rng.random() < 0.6)
        return Event(name, amount if up else -amount)

    def _balance(self) -> int:
        return self.rng.randint(0, HIGHEST)

    def _guess(self) -> str:
        return str(self.rng.randint(0, 25))


def pieces(text: str) -> list[str]:
    """The tokens of a text without special tokens."""
    return re.findall(PIECE, text)


def batches(maker: TextMaker, recipe: Recipe, seed: int) -> Iterator[Batch]:
    """Endless batches of texts of similar length, in random order."""
    rng = random.Random(f"chain batches:{seed}")
    while True:
        texts = sorted((maker.make() for _ in range(recipe.pool * recipe.batch_size)), key=lambda text: len(text[0]))
        groups = [texts[i : i + recipe.batch_size] for i in range(0, len(texts), recipe.batch_size)]
        rng.shuffle(groups)
        yield from (_pad(group) for group in groups)


def weighted_loss(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, float]:
    """Sum of the weighted cross-entropies, over rows times `WEIGHT_A_TEXT` (as in make_embedded_model.py); share of hard tokens right."""
    hidden_BTD = model.model(input_ids=batch.ids_BT[:, :-1], use_cache=False).last_hidden_state
    wanted = batch.weights_BT > 0
    logits_NV, targets_N, weights_N = model.lm_head(hidden_BTD[wanted]), batch.ids_BT[:, 1:][wanted], batch.weights_BT[wanted]
    loss_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
    hard = weights_N >= 2
    right = (logits_NV[hard].argmax(-1) == targets_N[hard]).float().mean().item() if hard.any() else 0.0
    return (loss_N * weights_N).sum() / (len(batch.ids_BT) * WEIGHT_A_TEXT), right


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word or character; special tokens recognised; nothing added; decoding joins without spaces."""
    vocab = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *CHARACTERS, *NUMBERS, *NAMES, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        extra_special_tokens=[NOTES, TEXT, UPDATE, QUESTION, ANSWER, PAST],
        model_max_length=MAX_POSITIONS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.intermediate,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=MAX_POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def pretrain(recipe: Recipe, seed: int, steps: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train a new model for `steps` steps: linear warm-up, then cosine decay to zero."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_model(recipe, tokenizer).train()
    optimizers = build_optimizers(model, recipe)  # pyright: ignore[reportArgumentType]
    warmup = min(recipe.warmup, max(steps // 10, 1))

    def lr_factor(step: int) -> float:
        return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor) for optimizer in optimizers]
    stream = batches(TextMaker(recipe, seed, tokenizer.get_vocab()), recipe, seed)
    started, recent = time.perf_counter(), deque[float](maxlen=100)
    for step, batch in enumerate(itertools.islice(stream, steps)):
        model.zero_grad(set_to_none=True)
        loss, right = weighted_loss(model, batch)
        recent.append(right)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        for stage in (*optimizers, *schedules):
            stage.step()
        if step % 100 == 0 or step == steps - 1:
            seconds = time.perf_counter() - started
            print(
                f"step {step:5d}/{steps}  loss {loss.item():.4f}  hard tokens right {sum(recent) / len(recent):.3f}  {seconds:6.0f} s",
                file=sys.stderr,
                flush=True,
            )
    return model.eval(), tokenizer


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to fill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-scale", type=float, default=1.0, help="times the recipe's number of steps")
    given = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    recipe = Recipe()
    steps = max(round(recipe.steps * given.steps_scale), 1)
    started = time.perf_counter()
    model, tokenizer = pretrain(recipe, given.seed, steps)
    save(model, tokenizer, given.out)
    seconds = round(time.perf_counter() - started)
    print(json.dumps({"seed": given.seed, "steps": steps, "parameters": model.num_parameters(), "seconds": seconds}))


if __name__ == "__main__":
    main()
