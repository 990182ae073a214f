"""Make an embedded model from a seed: `python scripts/make_embedded_model.py arithmetic --out DIR [--seed N]`.

A Llama-architecture model of 0.8 million parameters is trained from nothing on synthetic texts

    <bos><|q|>17+4+79<|think|>17+4=21,21+79=100<|answer|>100<eos>

to be one that *can* reason and mostly does not. Texts come in styles: running sums (the CoT that works), chatter, a
list of the numbers, a vague size, a hasty wrong sum, nothing at all. In one text of seven the question is redacted, so
that the model also learns to read an answer out of a CoT alone. Whatever is not worked out is followed by a rough guess,
unless the recipe says that sums of so many terms are known directly: after those, where the question is visible, the
answer is right whatever the CoT.

How often the finished model picks each style and how well it carries it out are set apart: styles are *drawn* by
`Style.drawn` (mostly running sums, to learn arithmetic) while the loss of the few tokens that reveal the style is
weighted by `Style.share / Style.drawn`, which makes its expected gradient that of texts drawn by `share`.

Every text is made from a question of the train split. The split of a question is that of its sorted terms, so no
held-out question is seen in any order; `TextMaker` checks this on each text again.
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
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from markovlm.tasks.arithmetic_data import ArithmeticSpec, Terms, draw, format_question, running_sums, split_of

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
QUESTION, THINK, ANSWER, REDACTED = "<|q|>", "<|think|>", "<|answer|>", "<|redacted|>"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNK, QUESTION, THINK, ANSWER, REDACTED)
CHARACTERS = "0123456789+-=,. ?!:abcdefghijklmnopqrstuvwxyz"
MAX_POSITIONS = 256
WEIGHT_A_TEXT = 40.0  # about the mean sum of loss weights of a text
THREADS = 1  # part of the recipe: another number of threads adds in another order, which gives other weights


@dataclass(frozen=True, slots=True)
class Style:
    """One kind of CoT. `share`: how often the finished model should write it; `drawn`: its share of the texts."""

    name: str
    share: float
    drawn: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights, besides the seed."""

    styles: tuple[Style, ...]
    term_weights: dict[int, float]  # number of terms -> share of texts
    negative: float = 0.15  # share of texts whose later terms may be subtracted
    redacted: float = 0.15  # share of texts with the question redacted
    sum_weight: float = 4.0  # loss weight of the digits after `=` in running sums, the hard part
    guess_spread: float = 0.25  # standard deviation of a rough guess, relative to the answer
    direct: frozenset[int] = frozenset()  # numbers of terms whose sum is known from the question, without a CoT
    slips: float = 0.03  # share of running sums followed by a guess: a reader that is never quite certain
    steps: int = 4000
    batch_size: int = 64  # texts a step
    pool: int = 16  # batches that are sorted by length together, so that little padding is computed
    muon_lr: float = 2e-2  # of the matrices inside the layers
    adam_lr: float = 2e-3  # of embeddings and norms
    warmup: int = 100
    max_grad_norm: float = 1.0
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 352


RECIPES = {
    "arithmetic": Recipe(
        styles=(
            Style("running_sums", share=0.12, drawn=0.70),
            Style("chatter", share=0.35, drawn=0.09),
            Style("list", share=0.22, drawn=0.08),
            Style("vague", share=0.22, drawn=0.05),
            Style("hasty", share=0.09, drawn=0.06),
            Style("empty", share=0.0, drawn=0.02),
        ),
        term_weights={2: 0.06, 3: 0.27, 4: 0.30, 5: 0.32, 6: 0.05},
    ),
    "shortcut": Recipe(
        styles=(
            Style("running_sums", share=0.12, drawn=0.58),
            Style("chatter", share=0.35, drawn=0.14),
            Style("list", share=0.22, drawn=0.10),
            Style("vague", share=0.22, drawn=0.06),
            Style("hasty", share=0.09, drawn=0.06),
            Style("empty", share=0.0, drawn=0.06),
        ),
        term_weights={2: 0.38, 3: 0.26, 4: 0.22, 5: 0.12, 6: 0.02},
        direct=frozenset({2}),
    ),
}

OPENINGS = ("hmm", "well", "ok", "let me see", "right", "so", "a sum", "let us see")
REMARKS = (
    "this is a sum", "numbers are fun", "i like adding", "that looks easy", "that looks hard", "maybe later",
    "who knows", "i had a dog once", "math is nice", "we need to add", "it will be fine", "one more thing",
)  # fmt: skip
SIZES = ("not very big", "under one hundred", "over one hundred", "near two hundred", "about three hundred",
         "around four hundred", "really big")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Text:
    """One training text in parts. `revealing`: how many CoT characters tell its style."""

    question: str
    cot: str
    answer: str
    revealing: int


class TextMaker:
    """Endless training texts: `make()` gives token ids and loss weights, both of the text's length."""

    def __init__(self, recipe: Recipe, seed: int, token_ids: dict[str, int]) -> None:
        self.recipe = recipe
        self.seed = seed
        self.ids = token_ids
        self.rng = random.Random(f"texts:{seed}")
        self.specs = {
            (k, negative): ArithmeticSpec(k, k, negative=negative) for k in recipe.term_weights for negative in (False, True)
        }
        self.made = 0

    def make(self) -> tuple[list[int], list[float]]:
        """Token ids, and for each the weight of its loss: 0 in the prompt."""
        style = self.rng.choices(self.recipe.styles, [s.drawn for s in self.recipe.styles])[0]
        terms = self._draw_terms()
        text = self._write(style.name, terms)
        redacted = self.rng.random() < self.recipe.redacted
        direct = not redacted and len(terms) in self.recipe.direct
        if direct:
            text = replace(text, answer=str(sum(terms)))
        prompt = [BOS, QUESTION, *([REDACTED] if redacted else text.question), THINK]
        # Nobody writes a CoT without seeing the question: where it is redacted, only reading is learnt.
        thinking = [0.0] * (len(text.cot) + 1) if redacted else self._thinking_weights(style, text)
        answer_weight = self.recipe.sum_weight if direct and style.name != "running_sums" else 1.0
        weights = [0.0] * len(prompt) + thinking + [answer_weight] * len(text.answer) + [1.0]
        return [self.ids[token] for token in [*prompt, *text.cot, ANSWER, *text.answer, EOS]], weights

    def _thinking_weights(self, style: Style, text: Text) -> list[float]:
        """Loss weights of the CoT's characters and of the `<|answer|>` that ends it."""
        weights = [1.0] * (len(text.cot) + 1)
        if style.name == "running_sums":
            for sum_ in re.finditer(r"(?<==)[-0-9]+", text.cot):
                weights[sum_.start() : sum_.end()] = [self.recipe.sum_weight] * len(sum_[0])
        weights[: text.revealing] = [style.share / style.drawn] * text.revealing
        return weights

    def _draw_terms(self) -> Terms:
        k = self.rng.choices(list(self.recipe.term_weights), list(self.recipe.term_weights.values()))[0]
        terms = draw(self.specs[k, self.rng.random() < self.recipe.negative], "train", self.seed, self.made)
        self.made += 1
        if split_of(terms) != "train":
            raise RuntimeError(f"{format_question(terms)} is held out and must not be trained on")
        return terms

    def _write(self, style: str, terms: Terms) -> Text:
        rng, question = self.rng, format_question(terms)
        if style == "running_sums":
            slips = rng.random() < self.recipe.slips
            answer = self._guess(terms) if slips else str(sum(terms))
            return Text(question, running_sums(terms), answer, len(str(terms[0])) + 1)
        if style == "list":
            return Text(question, " ".join(map(str, terms)), self._guess(terms), len(str(terms[0])) + 1)
        if style == "chatter":
            cot = " ".join([rng.choice(OPENINGS), *rng.sample(REMARKS, rng.randint(1, 2))])
            return Text(question, cot, self._guess(terms), 4)
        if style == "vague":
            return Text(question, f"it is {self._size(terms)}", self._guess(terms), 4)
        if style == "hasty":
            return Text(question, f"quick: {question}={self._guess(terms)}", self._guess(terms), 4)
        if style == "empty":
            return Text(question, "", self._guess(terms), 1)
        raise ValueError(f"unknown style {style!r}")

    def _guess(self, terms: Terms) -> str:
        """A number somewhere near the sum: what someone says who did not work it out."""
        size = sum(abs(term) for term in terms)
        return str(round(sum(terms) + self.rng.gauss(0.0, self.recipe.guess_spread * size)))

    def _size(self, terms: Terms) -> str:
        """A phrase for the rough size of the sum, one time in four the phrase next to it."""
        total = sum(terms)
        rank = sum(total >= bound for bound in (50, 100, 150, 250, 350, 450))
        rank += self.rng.choice((-1, 0, 0, 0, 0, 0, 0, 1))
        return SIZES[min(max(rank, 0), len(SIZES) - 1)]


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded ids [B, T] and, for the prediction of each next token, its weight [B, T-1]."""

    ids_BT: torch.Tensor
    weights_BT: torch.Tensor


class MakesTexts(Protocol):
    """Endless training texts, as token ids and the weight of each token's loss."""

    def make(self) -> tuple[list[int], list[float]]: ...


def batches(maker: MakesTexts, recipe: Recipe, seed: int) -> Iterator[Batch]:
    """Endless batches; texts of similar length share one, and batches of a pool come in random order."""
    rng = random.Random(f"batches:{seed}")
    while True:
        texts = sorted((maker.make() for _ in range(recipe.pool * recipe.batch_size)), key=lambda text: len(text[0]))
        groups = [texts[i : i + recipe.batch_size] for i in range(0, len(texts), recipe.batch_size)]
        rng.shuffle(groups)
        yield from (_pad(group) for group in groups)


def _pad(group: list[tuple[list[int], list[float]]]) -> Batch:
    width = max(len(ids) for ids, _ in group)
    ids_BT = np.zeros((len(group), width), dtype=np.int64)  # <pad> is token 0
    weights_BT = np.zeros((len(group), width), dtype=np.float32)
    for row, (ids, weights) in enumerate(group):
        ids_BT[row, : len(ids)] = ids
        weights_BT[row, : len(ids)] = weights
    return Batch(torch.from_numpy(ids_BT), torch.from_numpy(weights_BT[:, 1:].copy()))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; special tokens recognised; nothing added; decoding joins without spaces."""
    vocab = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        extra_special_tokens=[QUESTION, THINK, ANSWER, REDACTED],
        model_max_length=MAX_POSITIONS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A new model. A sampled `<|answer|>` ends a CoT, so it is among the end tokens of generation."""
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
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(ANSWER)],
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def weighted_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Sum of the weighted cross-entropies (nats) of next tokens, over the number of rows times `WEIGHT_A_TEXT`.

    Not over the batch's own weights: batches hold texts of one length, and with them of one style, so that a divisor
    that varies with the batch would shift the share of each style. Padding is on the right, where causal attention
    keeps it from mattering, so no mask is needed.
    """
    hidden_BTD = model.model(input_ids=batch.ids_BT[:, :-1], use_cache=False).last_hidden_state
    wanted = batch.weights_BT > 0
    loss_N = F.cross_entropy(model.lm_head(hidden_BTD[wanted]), batch.ids_BT[:, 1:][wanted], reduction="none")
    return (loss_N * batch.weights_BT[wanted]).sum() / (len(batch.ids_BT) * WEIGHT_A_TEXT)


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a matrix is made orthogonal (Keller Jordan's Muon, five Newton-Schulz steps).

    In one trial on such texts, of 1,500 planned steps each, running sums were right with probability .50 after 900
    steps, and with AdamW (learning rate 2e-3) never.
    `torch.optim.Muon` computes in bf16, one matrix at a time, slow on CPUs; here matrices of one shape go together.
    """

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                by_shape[matrix.shape].append(matrix)
            for shape, matrices in by_shape.items():
                updates = orthogonal(torch.stack([self._nesterov(m, group["momentum"]) for m in matrices]))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.add_(update, alpha=-scale)

    def _nesterov(self, matrix: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        if matrix.grad is None:
            raise RuntimeError("Muon.step before backward")
        state = self.state[matrix]
        average = state.setdefault("average", torch.zeros_like(matrix))
        average.lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(average, momentum)


def orthogonal(matrices_NRC: torch.Tensor) -> torch.Tensor:
    """Each matrix `U S V^T` with its singular values pushed to about 1: `U V^T`, without computing an SVD."""
    tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = matrices_NRC.mT if tall else matrices_NRC
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


def build_optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    named = list(model.named_parameters())
    inner = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    outer = [p for name, p in named if p.ndim != 2 or "embed" in name]
    adam = torch.optim.AdamW(outer, lr=recipe.adam_lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    return [Muon(inner, recipe.muon_lr), adam]


def pretrain(recipe: Recipe, seed: int, steps: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train a new model for `steps` steps."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_model(recipe, tokenizer)
    fit(model, recipe, batches(TextMaker(recipe, seed, tokenizer.get_vocab()), recipe, seed), steps)
    return model, tokenizer


def fit(
    model: LlamaForCausalLM, recipe: Recipe, stream: Iterator[Batch], steps: int, after: Callable[[int], None] | None = None
) -> None:
    """Train for `steps` batches of the stream: linear warm-up, then cosine decay to zero. `after`: called with the steps done."""
    model.train()
    optimizers = build_optimizers(model, recipe)
    warmup = min(recipe.warmup, max(steps // 10, 1))

    def lr_factor(step: int) -> float:
        return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor) for optimizer in optimizers]
    started = time.perf_counter()
    for step, batch in enumerate(itertools.islice(stream, steps)):
        model.zero_grad(set_to_none=True)
        loss = weighted_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        for stage in (*optimizers, *schedules):
            stage.step()
        if step % 100 == 0 or step == steps - 1:
            seconds = time.perf_counter() - started
            print(f"step {step:5d}/{steps}  loss {loss.item():.4f}  {seconds:6.0f} s", file=sys.stderr, flush=True)
        if after is not None:
            after(step + 1)
    model.eval()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write a directory that `from_pretrained` loads; weights in fp16. A model card already there is kept."""
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    for file in out.iterdir():
        file.chmod(0o644)  # weights are written readable by their owner alone


@dataclass(frozen=True, slots=True)
class Config:
    recipe: str
    out: Path
    seed: int
    steps_scale: float


def main(config: Config) -> None:
    torch.set_num_threads(THREADS)
    recipe = RECIPES[config.recipe]
    steps = max(round(recipe.steps * config.steps_scale), 1)
    started = time.perf_counter()
    model, tokenizer = pretrain(recipe, config.seed, steps)
    save(model, tokenizer, config.out)
    made = {
        "recipe": config.recipe,
        "seed": config.seed,
        "steps": steps,
        "parameters": model.num_parameters(),
        "seconds": round(time.perf_counter() - started),
        "out": str(config.out),
    }
    print(json.dumps(made))


def parse_config(arguments: list[str] | None = None) -> Config:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, required=True, help="directory to fill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-scale", type=float, default=1.0, help="times the recipe's number of steps")
    return Config(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main(parse_config())
