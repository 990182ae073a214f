"""Random tiny models of four architectures and character tokenizers, saved as transformers saves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from markovlm.config import RunConfig, build_config
from markovlm.config.model import Loading, Lora
from markovlm.models.load import LanguageModel, load_model
from markovlm.objectives import build_objective
from markovlm.rewards import build_reward
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.types import Sampler
from markovlm.runs.setup import prepare
from markovlm.tasks.base import Example
from markovlm.training.distributed import World
from markovlm.training.readers import reading_room
from markovlm.training.records import Learner

ARCHITECTURES = ("llama", "qwen3", "gemma3", "gpt2")
WINDOW = 6  # of Gemma-3's sliding layers: shorter than the prompts of the tests
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS = 0, 1, 2


def save_model(architecture: str, directory: Path) -> Path:
    """Weights large enough that distributions are far from uniform and every layer matters."""
    tokenizer = char_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = _model(architecture, len(tokenizer))
    model.generation_config.eos_token_id = EOS
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _model(architecture: str, vocabulary: int) -> Any:
    import transformers as hf

    ids = {"vocab_size": vocabulary, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "initializer_range": 0.3}
    if architecture == "gpt2":
        return hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=256, **ids))
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        **ids,
    }
    sizes |= {"head_dim": 8, "max_position_embeddings": 256}
    if architecture == "llama":
        return hf.LlamaForCausalLM(hf.LlamaConfig(**sizes))
    if architecture == "qwen3":
        return hf.Qwen3ForCausalLM(hf.Qwen3Config(**sizes))
    layers = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8}
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**sizes, **layers))


def char_tokenizer() -> Any:
    """One token a character, `<bos>` in front where special tokens are asked for."""
    from tokenizers import processors

    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *ALPHABET))}
    backend = _character_backend(vocabulary, "<unk>")
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    return _wrap(backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")


def save_nano(directory: Path, architecture: str = "gpt2") -> Path:
    """Vocabulary `0 1 2 <eos>`; every other character vanishes, so that the task's own prompts become a few tokens.

    GPT-2 computes in float64 throughout; Llama's norm and rotary angles are float32 in transformers, whatever its dtype.
    """
    import transformers as hf
    from tokenizers import Regex, normalizers

    backend = _character_backend({"0": 0, "1": 1, "2": 2, "<eos>": 3}, "0")
    backend.normalizer = normalizers.Replace(Regex("[^012]"), "")
    tokenizer = _wrap(backend, eos_token="<eos>")
    ids = {"vocab_size": 4, "bos_token_id": None, "eos_token_id": 3, "initializer_range": 0.6}
    with torch.random.fork_rng():
        torch.manual_seed(11)
        if architecture == "gpt2":
            model = hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=32, **ids))
        else:
            sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
            model = hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, max_position_embeddings=32, **ids))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _character_backend(vocabulary: Mapping[str, int], unknown: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel(dict(vocabulary), unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return backend


def _wrap(backend: Any, **tokens: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **tokens)


# ---------------------------------------------------------------------------------------------- ready to use


def load(
    directory: Path, *, dtype: str = "float64", lora: Lora | None = None, shaken: bool = False, seed: int = 0
) -> LanguageModel:
    """On the CPU, with a fresh adapter (`shaken`: one that does something) unless `lora` is left out and not shaken."""
    if shaken and lora is None:
        lora = Lora(rank=2, alpha=4)
    lm = load_model(str(directory), Loading(device="cpu", dtype=dtype), lora=lora, seed=seed)
    if shaken:
        shake(lm)
    return lm


@torch.no_grad()
def shake(lm: LanguageModel, scale: float = 0.2, seed: int = 3) -> None:
    """Make A and B of every adapter matrix nonzero."""
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in lm.adapter_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.add_(scale * noise.to(parameter.device, parameter.dtype))


def config(model: Path | str, **overrides: Any) -> RunConfig:
    """A run small enough for a test; `overrides` as dotted keys with `__` for the dot."""
    from markovlm.config import nest

    base = {
        "model": str(model),
        "task": "arithmetic",
        "loading.device": "cpu",
        "loading.dtype": "float64",
        "lora.rank": 2,
        "lora.alpha": 4,
        "rollouts.questions_per_step": 2,
        "rollouts.group_size": 2,
        "rollouts.max_cot_tokens": 5,
        "training.steps": 4,
        "training.lr": 1e-2,
        "training.eval_every": 0,
        "training.checkpoint_every": 2,
        "evaluation.dev_size": 4,
        "evaluation.batch_size": 4,
    }
    return build_config(nest(base), nest({key.replace("__", "."): value for key, value in overrides.items()}))


class RecordingSGD(torch.optim.SGD):
    """Keeps the gradients of the last step; the learning rate comes from the configuration."""

    def step(self, closure: Any = None) -> Any:
        self.recorded = [p.grad.detach().clone() for group in self.param_groups for p in group["params"]]
        return super().step(closure)

    def flat(self) -> torch.Tensor:
        return torch.cat([gradient.reshape(-1) for gradient in self.recorded])


def learner(
    run: RunConfig,
    *,
    sampler: Sampler | None = None,
    shaken: bool = True,
    optimizer: Any = RecordingSGD,
    world: World | None = None,
    **training: Any,
) -> Learner:
    """What `take_step` needs. `training` overrides keys of that section without validation (tiny token budgets)."""
    world = world or World()
    setup = prepare(run, trainable=True, shards=world.shards)
    if shaken:
        shake(setup.lm)
    resolved = setup.config
    if training:
        resolved = resolved.model_copy(update={"training": resolved.training.model_copy(update=training)})
    parameters = [parameter for _, parameter in setup.lm.adapter_parameters()]
    sharing = "shared" if run.training.prompt_sharing == "auto" else run.training.prompt_sharing
    sampler = sampler or HFSampler(setup.lm, resolved.rollouts.batch_tokens)
    objective = build_objective(resolved.objective)
    return Learner(
        resolved,
        setup.lm,
        setup.prompter,
        sampler,
        objective,
        build_reward(resolved.objective),
        reading_room(setup),
        optimizer(parameters, lr=0.0),
        world,
        sharing,
    )


QUESTIONS = (
    Example("q/1", "1+22", "23"),
    Example("q/2", "7+8+9", "24"),
    Example("q/3", "30+4", "34"),
    Example("q/4", "5+6+7+88", "106"),
)


def renamed(example: Example, question: str) -> Example:
    """The same example with another question."""
    return replace(example, question=question)
