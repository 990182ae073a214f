"""What the tests of the studies share: a run with a twin, a tokenizer that does not round-trip, and scoring one by one."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from markovlm.analysis import study as study_module
from markovlm.analysis.scoring import Scored, Variant
from markovlm.analysis.study import Study, StudyCot, open_study
from markovlm.models.load import LanguageModel
from markovlm.rollouts.prompter import Prompter
from markovlm.runs.setup import Setup
from markovlm.runs.targets import Target, open_targets
from markovlm.tasks.base import Example
from markovlm.training.loop import train
from support import naive, runs, tiny

COT_TOKENS = 12


def train_twins(model: Path, folder: Path) -> tuple[Path, Path]:
    """Three steps of each on sums, float64; checkpoints at 0, 1, 2 and 3."""
    for conditioning in ("markovian", "non_markovian"):
        config = runs.run_config(
            model, loading__dtype="float64", training__steps=3, training__lr="0.3", training__eval_every=0,
            training__checkpoint_every=1, rollouts__max_cot_tokens=COT_TOKENS, rollouts__fixed_length=True,
            logging__samples_every=0, objective__conditioning=conditioning, objective__kl_weight="0",
        )  # fmt: skip
        train(config, folder / conditioning)
    return folder / "markovian", folder / "non_markovian"


def open_one(name: Path | str, folder: Path, *, limit: int = 4, cots: int = 1, **overrides: Any) -> Study:
    """A study of the last checkpoint of a run, or of a model; `overrides` as nested configuration."""
    target = open_targets(str(name), "last", overrides)[0]
    return open_study(target, target.prepare(), split="test", limit=limit, cots=cots, folder=folder)


def with_texts(study: Study, texts: Sequence[str], examples: Sequence[Example] | None = None) -> Study:
    """The study with CoTs written by hand, in the tokens of its tokenizer, one a question."""
    asked = examples or study.questions
    tokenizer = study.setup.lm.tokenizer
    ids = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    study.cots = [StudyCot(e, 0, i, text, False) for e, i, text in zip(asked, ids, texts, strict=True)]
    return study


def scripted(monkeypatch: Any, script: Callable[[Variant], Scored]) -> list[Variant]:
    """Let `script` read for every study; returns the list of variants that were asked for."""
    asked: list[Variant] = []

    def read(_: Study, variants: Sequence[Variant], __: str) -> list[Scored]:
        asked.extend(variants)
        return [script(variant) for variant in variants]

    monkeypatch.setattr(Study, "read", read)
    return asked


# ------------------------------------------------------------------------------------------------- what is done, and when


def targets_of(run: Path) -> list[Target]:
    return [target for target in open_targets(str(run), "all,base", {}) if target.step != 0]


class Stopped(Exception):
    """Stands for whatever ends a process."""


def stop_after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: int, *, before: bool = True) -> None:
    """Let the method work `calls` times, then raise: instead of the next call, or after it is done."""
    real, done = getattr(owner, name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        done[0] += 1
        if done[0] > calls and before:
            raise Stopped
        result = real(*args, **kwargs)
        if done[0] > calls:
            raise Stopped
        return result

    monkeypatch.setattr(owner, name, counted)


def counted_readings(monkeypatch: pytest.MonkeyPatch) -> list[Variant]:
    """Every variant that a model reads from now on."""
    read: list[Variant] = []
    real = study_module.read_variants
    monkeypatch.setattr(study_module, "read_variants", lambda setup, sampler, v: read.extend(v) or real(setup, sampler, v))
    return read


def watch(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Fail where a model is loaded while another one is alive; returns those loaded."""
    loaded: list[Any] = []
    real = Target.prepare

    def prepare(self: Target) -> Setup:
        gc.collect()
        assert not any(model() is not None for model in loaded), f"{self.name} is loaded beside another model"
        setup = real(self)
        loaded.append(weakref.ref(setup.lm.causal_lm))
        return setup

    monkeypatch.setattr(Target, "prepare", prepare)
    return loaded


# ------------------------------------------------------------------------------------------------------ one by one


@torch.no_grad()
def plain_logprob(lm: LanguageModel, prefix: Sequence[int], answer: Sequence[int], *, total: bool = False) -> float:
    """ln pi(answer | prefix) per token, or of them all, from one plain pass."""
    log_p = naive.distribution(naive.row_logits(lm, prefix, answer))
    each = [log_p[i, token].item() for i, token in enumerate(answer)]
    return sum(each) if total else sum(each) / len(each)


def read_alone(lm: LanguageModel, prompter: Prompter, variant: Variant) -> float:
    """What `logprobs` says of a variant."""
    return plain_logprob(lm, _prefix(prompter, variant), prompter.target_ids(variant.example))


@torch.no_grad()
def answer_alone(lm: LanguageModel, prompter: Prompter, variant: Variant) -> str:
    """The likeliest token, one after the other, each from a pass over everything before it."""
    ids: list[int] = []
    for _ in range(prompter.task.max_answer_tokens):
        token = int(naive.row_logits(lm, [*_prefix(prompter, variant), *ids], [0])[0].argmax())
        if token in lm.terminators:
            break
        ids.append(token)
    return lm.tokenizer.decode(ids, skip_special_tokens=True)


def _prefix(prompter: Prompter, variant: Variant) -> list[int]:
    return [*prompter.reader_prompt(variant.example, variant.conditioning), *variant.ids, *prompter.header_ids]


def bootstrap(values: Sequence[float], clusters: Sequence[str], seed: int) -> list[float]:
    """95 % percentile interval of the mean from 10,000 draws of whole clusters, written out."""
    groups: dict[str, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    members = list(groups.values())
    means = []
    for drawn in np.random.default_rng(seed).integers(len(members), size=(10_000, len(members))):
        pooled = [value for i in drawn for value in members[i]]
        means.append(sum(pooled) / len(pooled))
    return np.quantile(means, [0.025, 0.975]).tolist()


# ------------------------------------------------------------------------------------- a tokenizer that does not round-trip

MERGED = ("10", "21", "=2")  # sampled apart as often as together, encoded always together


def save_bytes(directory: Path) -> Path:
    """A random Llama over bytes, so that one character may take several tokens, with three merges."""
    tokenizer = byte_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = tiny._model("llama", len(tokenizer))
    model.generation_config.eos_token_id = tiny.EOS
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = [*tiny.SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *MERGED]
    merges = [(token[0], token[1]) for token in MERGED]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return tiny._wrap(backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
