"""Make a model that reasons in words: `python scripts/make_words_model.py --out DIR [--seed N] [--size S]`.

As `make_embedded_model.py` (whose optimizer, loss and loop it uses), but on word problems and with subword tokens:

    <bos><|q|>Anna has 14 plums. She buys 3 bags of 5. How many plums does Anna have now?<|think|>Anna has 14 plums. 3 bags of 5
    are 3 * 5 = 15. Add them, 14 + 15 = 29.<|answer|>29<eos>

The model to be made *can* work a problem out in sentences and mostly writes something else (chatter, a list of the numbers, a
vague size, a hasty wrong sum), after which the answer is a rough guess. Problems of one step are the exception: with a look at
the question their answer is right whatever the chain of thought. In a share of the texts the question is redacted: there the
model learns to read an answer out of a chain of thought, and, cheaply, the sums in it.

Names, things and sentence templates are those of the train split; `WordTexts` checks each text. Merges of the tokenizer are learnt on
train words alone, so that a held-out name is spelt in pieces, as many names of training are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from make_embedded_model import (
    ANSWER,
    BOS,
    EOS,
    MAX_POSITIONS,
    PAD,
    QUESTION,
    REDACTED,
    SPECIAL_TOKENS,
    THINK,
    THREADS,
    UNK,
    Recipe,
    Style,
    batches,
    build_model,
    fit,
    save,
)
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast
from words_splits import templates_of, words_of

from markovlm.models.registry import KNOWN
from markovlm.tasks.words_data import Problem, WordsSpec, draw
from markovlm.tasks.words_pools import TAILS

SIZES = {  # hidden, layers, heads, intermediate
    "small": {"hidden": 96, "layers": 4, "heads": 4, "intermediate": 256},
    "base": {"hidden": 128, "layers": 4, "heads": 4, "intermediate": 352},
    "large": {"hidden": 160, "layers": 5, "heads": 5, "intermediate": 432},
}
CONSONANTS = ("b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "br", "ch", "st", "tr", "j", "")
VOWELS = "aeiou"
ENDS = ("", "", "", "n", "r", "l", "s", "t", "nd", "ck")
MEANING = "Add|Take|more|fewer|times|Together"
COMMON = 200  # how often a word that becomes one token is counted
VOCABULARY = 1200  # at most

OPENINGS = ("Hmm", "Well", "Ok", "Right", "So", "Let me see", "Oh", "Now then")
REMARKS = (
    "{t} are nice", "this is a story", "I like {t}", "that looks easy", "that looks hard", "maybe later", "who knows",
    "I had a dog once", "{t} are fun", "we need to count", "it will be fine", "one more thing", "I know {N}",
    "there are many {t}", "{N} is happy", "it is about {t}",
)  # fmt: skip
OTHER_TAILS = (" at the {}", " in the {}", " on the {}", " after {}", " this {}", " from {}")
AMOUNTS = ("very few", "not many", "quite some", "many", "really many", "a whole lot")


@dataclass(frozen=True, slots=True)
class WordsRecipe(Recipe):
    """`term_weights` is the share of problems by number of steps."""

    operand_weight: float = 1.5  # loss weight of the other digits of a worked chain of thought
    copied_weight: float = 2.0  # of names and things in one, which stand in the question
    meaning_weight: float = 3.0  # of the words that say what happens: Add, Take, more, fewer
    direct_weight: float = 8.0  # of an answer that is known at a glance, which takes the whole problem in one pass
    repeated_weight: float = 1.0  # of names and things in the question from their second time on: learning to copy
    distractors: int = 1
    idle: float = 0.5  # among problems that are known directly, the share of other chains of thought than sentences
    invented: float = 0.5  # share of problems with names and things of random letters, so that the model learns to copy any
    other_tails: float = (
        0.0  # share of sentences that end in words of random letters: verbs tell what happens, not where and when
    )
    drills: float = 0.5  # share of redacted texts that are worked problems of four steps, whatever the rest


RECIPE = WordsRecipe(
    styles=(
        Style("sentences", share=0.16, drawn=0.75),
        Style("chatter", share=0.34, drawn=0.08),
        Style("list", share=0.19, drawn=0.05),
        Style("vague", share=0.20, drawn=0.05),
        Style("hasty", share=0.11, drawn=0.05),
        Style("empty", share=0.0, drawn=0.02),
    ),
    term_weights={1: 0.34, 2: 0.34, 3: 0.22, 4: 0.10},
    redacted=0.2,
    direct=frozenset({1}),
    muon_lr=2e-2,
    steps=6500,
)
SECOND = replace(  # for what goes on from a model of RECIPE: more of what is known at a glance, worked a little more often, other tails
    RECIPE,
    styles=(
        Style("sentences", share=0.20, drawn=0.75),
        Style("chatter", share=0.32, drawn=0.08),
        Style("list", share=0.18, drawn=0.05),
        Style("vague", share=0.19, drawn=0.05),
        Style("hasty", share=0.11, drawn=0.05),
        Style("empty", share=0.0, drawn=0.02),
    ),
    term_weights={1: 0.40, 2: 0.30, 3: 0.22, 4: 0.08},
    direct_weight=12.0,
    idle=0.6,
    other_tails=0.4,
    muon_lr=1e-2,
    adam_lr=1e-3,
    steps=1500,
)


class WordTexts:
    """Endless training texts: `make()` gives token ids and loss weights, both of the text's length."""

    def __init__(self, recipe: WordsRecipe, seed: int, tokenizer: PreTrainedTokenizerFast) -> None:
        self.recipe = recipe
        self.seed = seed
        self.tokenizer = tokenizer.backend_tokenizer  # the wrapper around it takes four times as long
        self.end = tokenizer.convert_tokens_to_ids(ANSWER)
        self.rng = random.Random(f"words:{seed}")
        self.specs = {steps: WordsSpec(steps, steps, recipe.distractors) for steps in recipe.term_weights}
        worked, *idle = recipe.styles
        scale = recipe.idle / sum(s.drawn for s in idle)
        self.direct_styles = (
            replace(worked, drawn=1 - recipe.idle),
            *(replace(s, drawn=s.drawn * scale) for s in idle),
        )
        self.templates, self.words = templates_of("train"), words_of("train")
        self.held_out = words_of("dev") | words_of("test")
        self.made = 0

    def make(self) -> tuple[list[int], list[float]]:
        """Token ids, and for each the weight of its loss: 0 in the prompt."""
        rng, recipe = self.rng, self.recipe
        redacted = rng.random() < recipe.redacted
        steps = rng.choices(list(recipe.term_weights), list(recipe.term_weights.values()))[0]
        styles = self.direct_styles if steps in recipe.direct else recipe.styles
        style = rng.choices(styles, [s.drawn for s in styles])[0]
        if redacted and rng.random() < recipe.drills:
            style, steps = recipe.styles[0], max(recipe.term_weights)
        problem = self._draw(steps)
        cot, answer = self._write(style.name, problem)
        direct = not redacted and steps in recipe.direct
        answer = str(problem.answer) if direct else answer
        prompt = f"{BOS}{QUESTION}{REDACTED if redacted else problem.question}{THINK}"
        # each part is encoded alone, as in use
        before, thought, said = (
            self.tokenizer.encode(part, add_special_tokens=False) for part in (prompt, cot, f"{answer}{EOS}")
        )
        at_sight = direct and style.name != "sentences"
        weights = self._prompt_weights(problem, prompt, before.offsets) + self._weights(
            problem, style, cot, thought.offsets, redacted
        )
        weights += [recipe.direct_weight if at_sight else 1.0] * (len(said) - 1) + [1.0]
        return [*before.ids, *thought.ids, self.end, *said.ids], weights

    def _prompt_weights(self, problem: Problem, prompt: str, spans: list[tuple[int, int]]) -> list[float]:
        """Loss weights of the prompt's tokens: 0, but for a name or thing that stood there before."""
        by_character = [0.0] * len(prompt)
        for word in problem.words:
            for again in list(re.finditer(rf"\b{word}\b", prompt))[1:]:
                by_character[again.start() : again.end()] = [self.recipe.repeated_weight] * len(word)
        return [by_character[end - 1] for _, end in spans]

    def _weights(self, problem: Problem, style: Style, cot: str, spans: list[tuple[int, int]], redacted: bool) -> list[float]:
        """Loss weights of the CoT's tokens and of the `<|answer|>` that ends it: what tells the style (the first token) by the share
        that it should have, results and operands by the recipe. Nobody writes without seeing the question: where it is
        redacted, only the results count, which follow from what stands before them."""
        recipe, plain = self.recipe, 0.0 if redacted else 1.0
        by_character = [plain] * len(cot)
        if style.name == "sentences":
            for number in re.finditer(r"\d+", cot):
                result = cot[max(number.start() - 2, 0) : number.start()] == "= "
                weight = recipe.sum_weight if result else recipe.operand_weight * plain
                by_character[number.start() : number.end()] = [weight] * len(number[0])
            if not redacted:
                of_words = [*((word, recipe.copied_weight) for word in sorted(problem.words)), (MEANING, recipe.meaning_weight)]
                for pattern, weight in of_words:
                    for word in re.finditer(rf"\b({pattern})\b", cot):
                        by_character[word.start() : word.end()] = [weight] * len(word[0])
        weights = [by_character[end - 1] for _, end in spans] + [plain]
        if not redacted:
            weights[0] = style.share / style.drawn
        return weights

    def _draw(self, steps: int) -> Problem:
        problem = draw(self.specs[steps], "train", self.seed, self.made)
        self.made += 1
        if not (problem.words <= self.words and self.templates.issuperset(problem.templates)):
            raise RuntimeError(f"{problem.question!r} has something that is held out and must not be trained on")
        problem = self._with_other_tails(problem)
        if self.rng.random() >= self.recipe.invented:
            return problem
        things = {word: f"{self._invent()}s" for word in sorted(problem.words) if word.islower()}
        return problem.renamed(things | {word: self._invent().capitalize() for word in (problem.name, problem.other)})

    def _with_other_tails(self, problem: Problem) -> Problem:
        """Some sentences end elsewhere: ` on the table` becomes ` in the dorbi`. With a word that no template has, none is a held-out one."""
        return replace(
            problem,
            events=tuple(replace(event, template=self._other_tail(event.template)) for event in problem.events),
            question_template=self._other_tail(problem.question_template),
        )

    def _other_tail(self, template: str) -> str:
        if self.rng.random() >= self.recipe.other_tails:
            return template
        body, end = template[:-1], template[-1]
        known = next((tail for tail in TAILS if body.endswith(tail)), "")
        return body.removesuffix(known) + self.rng.choice(OTHER_TAILS).replace("{}", self._invent()) + end

    def _invent(self) -> str:
        """A word of two or three random syllables, none that is held out."""
        syllables = (self.rng.choice(CONSONANTS) + self.rng.choice(VOWELS) + self.rng.choice(ENDS) for _ in range(3))
        word = "".join(itertools.islice(syllables, self.rng.choice((1, 2, 2, 2, 3))))
        return self._invent() if {word, f"{word}s", word.capitalize()} & self.held_out else word

    def _write(self, style: str, problem: Problem) -> tuple[str, str]:
        """A chain of thought and the answer that follows it."""
        rng, guess = self.rng, self._guess(problem)
        if style == "sentences":
            return problem.cot, guess if rng.random() < self.recipe.slips else str(problem.answer)
        numbers = re.findall(r"\d+", problem.question)
        if style == "list":
            return " ".join(numbers), guess
        if style == "chatter":
            remarks = ". ".join(rng.sample(REMARKS, rng.randint(1, 2)))
            return f"{rng.choice(OPENINGS)}, {remarks}.".replace("{t}", problem.thing).replace("{N}", problem.name), guess
        if style == "vague":
            return f"It is {self._amount(problem)}.", guess
        if style == "hasty":
            first, second = (numbers * 2)[:2]
            return f"Quick, {first} {rng.choice('+-*')} {second} = {self._guess(problem)}.", guess
        if style == "empty":
            return "", guess
        raise ValueError(f"unknown style {style!r}")

    def _guess(self, problem: Problem) -> str:
        """A number somewhere near the answer or the first numbers: what someone says who did not work it out."""
        size = max(problem.answer, 20)
        return str(max(round(problem.answer + self.rng.gauss(0.0, self.recipe.guess_spread * size)), 0))

    def _amount(self, problem: Problem) -> str:
        """A phrase for the rough size of the answer, one time in four the phrase next to it."""
        rank = sum(problem.answer >= bound for bound in (12, 25, 40, 60, 80)) + self.rng.choice((-1, 0, 0, 0, 0, 0, 0, 1))
        return AMOUNTS[min(max(rank, 0), len(AMOUNTS) - 1)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE: words with the space before them, digits each alone; merges learnt on train texts; nothing is unknown.

    Every other name and thing of training becomes one token too; the rest is counted once each, so that of them only pieces
    that several share become tokens, as in names that are held out.
    """
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(r" ?[A-Za-z]+| ?[0-9]| ?[^A-Za-z0-9\s]|\s"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=3,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
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


def _corpus() -> list[str]:
    """Words that the tokenizer's merges are counted on: those of the train templates and CoTs often, and half of the names and
    things; the other half once."""
    own = words_of("train")
    told = [*templates_of("train"), *OPENINGS, *REMARKS, *AMOUNTS, "It is. Quick,", "She He she he her him Together together"]
    told += ["First Together are Add Take away add take them has times as many more fewer they have bags boxes packs baskets"]
    common = sorted({piece for text in told for piece in re.findall(r"[A-Za-z]+", re.sub(r"\{.\}", "", text))} - own)
    spelt = [form for word in sorted(own) for form in (f" {word}", word)]
    common += sorted(own)[::2]
    signs = [f" {sign}" for sign in "0123456789+-*=abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    return [f" {word}" for word in common] * COMMON + common * COMMON + signs * COMMON + spelt


def start_from_sums(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Take over the weights of the model `embedded`, of the same shape, which knows sums already.

    `14 + 15 = 29` has the tokens ` 1 4 + 1 5 = 2 9`, each of which gets the embedding of its character; all the other tokens but
    the special ones keep a new embedding.
    """
    sums = LlamaForCausalLM.from_pretrained(KNOWN["embedded"].path, dtype=torch.float32)
    characters = AutoTokenizer.from_pretrained(KNOWN["embedded"].path).get_vocab()
    with torch.no_grad():
        own = sums.state_dict()
        fresh = model.model.embed_tokens.weight
        for i in range(len(tokenizer)):
            text = str(tokenizer.decode([i]))
            known = characters.get(text, characters.get(text.strip(), None))
            if known is not None and (text in SPECIAL_TOKENS or not text.strip().isalpha()):
                fresh[i] = own["model.embed_tokens.weight"][known]
        inner = {name: value for name, value in own.items() if "embed" not in name and "lm_head" not in name}
        missing, unexpected = model.load_state_dict(inner, strict=False)
        if unexpected or any("layers" in name for name in missing):
            raise RuntimeError(f"embedded and the new model differ in shape: {unexpected or missing}")


def start_from(path: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Take over the weights of an earlier model of this script; tokens are matched by what they say."""
    earlier = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).state_dict()
    known = AutoTokenizer.from_pretrained(path).get_vocab()
    with torch.no_grad():
        for token, i in tokenizer.get_vocab().items():
            if token in known:
                model.model.embed_tokens.weight[i] = earlier["model.embed_tokens.weight"][known[token]]
        model.load_state_dict(
            {name: v for name, v in earlier.items() if "layers" in name or name == "model.norm.weight"}, strict=False
        )


@dataclass(frozen=True, slots=True)
class Config:
    out: Path
    start: Path | None
    seed: int
    size: str
    steps_scale: float
    save_every: int


def main(config: Config) -> None:
    torch.set_num_threads(THREADS)
    recipe = replace(RECIPE if config.start is None else SECOND, **SIZES[config.size])
    steps = max(round(recipe.steps * config.steps_scale), 1)
    started = time.perf_counter()
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer()
    model = build_model(recipe, tokenizer)
    if config.start is not None:
        start_from(config.start, model, tokenizer)
    elif config.size == "base":
        start_from_sums(model, tokenizer)

    def after(done: int) -> None:
        if done % config.save_every == 0 and done < steps:
            save(model, tokenizer, config.out)
            model.float()

    fit(model, recipe, batches(WordTexts(recipe, config.seed, tokenizer), recipe, config.seed), steps, after)
    save(model, tokenizer, config.out)
    made = {
        "size": config.size,
        "seed": config.seed,
        "steps": steps,
        "parameters": model.num_parameters(),
        "seconds": round(time.perf_counter() - started),
        "out": str(config.out),
    }
    print(json.dumps(made))


def parse_config(arguments: list[str] | None = None) -> Config:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to fill")
    parser.add_argument("--start", type=Path, default=None, help="go on from a model this script made, by a second recipe")
    parser.add_argument(
        "--seed", type=int, default=0, help="of weights and texts; take another one to go on from an earlier model"
    )
    parser.add_argument("--size", choices=sorted(SIZES), default="base")
    parser.add_argument("--steps-scale", type=float, default=1.0, help="times the recipe's number of steps")
    parser.add_argument("--save-every", type=int, default=1000, help="steps between copies of the unfinished model in --out")
    return Config(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main(parse_config())
