"""Sampling by vLLM in the trainer's own process: a second copy of the base model, and the adapter as a LoRA after every update.

The adapter is never merged: the base that vLLM holds keeps its bits, and `lm.frozen()` samples from it unchanged. On a GPU the engine sleeps while
the trainer works: its weights go to the host's memory and its cache is freed. Prompts and CoTs are token ids on both sides.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markovlm.errors import RunFailed, UserError
from markovlm.models.language import LanguageModel
from markovlm.models.registry import resolve
from markovlm.rollouts.ends import cut_off
from markovlm.rollouts.foreign import ForeignSampler, Job
from markovlm.rollouts.streams import torch_seed
from markovlm.rollouts.types import CoT, Decoding, SamplerPlace

MEMORY = 0.3  # of the GPU, for vLLM's weights and cache
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has buffers for


class VllmSampler(ForeignSampler):
    """Samples from a `vllm.LLM`."""

    def __init__(self, lm: LanguageModel, engine: Any, folder: Path, sleeps: bool):
        super().__init__(lm, folder)
        self.engine: Any = engine
        self.sleeps = sleeps
        self._adapter: Any = None  # vLLM's request for the present one
        self._number = 0
        self._rest()

    def draw(self, jobs: Sequence[Job], decoding: Decoding, adapter: str | None) -> list[CoT]:
        if self.sleeps:
            self.engine.wake_up()
        try:
            answers = self.engine.generate(
                [{"prompt_token_ids": list(prompt)} for prompt, _ in jobs],
                [_wanted(self.lm, decoding, key) for _, key in jobs],
                use_tqdm=False,
                lora_request=self._adapter if adapter else None,
            )
        except (ValueError, RuntimeError) as error:  # a prompt that does not fit, an adapter that it can't read, no memory
            raise RunFailed(f"rollouts.backend=vllm: vLLM failed: {' '.join(str(error).split()):.300}") from error
        finally:
            self._rest()
        return [self._cot(answer.outputs[0], decoding) for answer in answers]

    def _cot(self, output: Any, decoding: Decoding) -> CoT:
        tokens = list(output.token_ids)
        logps = [at[token].logprob for token, at in zip(tokens, output.logprobs, strict=True)]
        cot = cut_off(self.lm, tokens, logps, decoding)
        if not tokens or not (cot.ended or len(cot.tokens) == decoding.max_tokens):
            raise RunFailed(
                f"rollouts.backend=vllm: vLLM ended a CoT after {len(tokens)} of {decoding.max_tokens} tokens ({output.finish_reason})"
            )
        return cot

    def load(self, name: str, directory: Path) -> None:
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        self._number += 1  # vLLM's caches go by it: a number of its own for every hand-over
        self._adapter = LoRARequest(name, self._number, str(directory.resolve()))

    def drop(self, name: str) -> None:
        """vLLM has room for one adapter: the next one takes its place."""

    def close(self) -> None:
        super().close()
        self.engine = self._adapter = None
        gc.collect()

    def _rest(self) -> None:
        if self.sleeps:
            self.engine.sleep(level=1)


def build_vllm(place: SamplerPlace) -> VllmSampler:
    """Build the sampler for `rollouts.backend: vllm`. Raises UserError if vLLM is missing or does not support the model."""
    lm, config = place.lm, place.config
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("rollouts.backend=vllm runs in one process only; for several use a server (rollouts.backend=server)")
    if lm.quantization != "none":
        raise UserError("rollouts.backend=vllm: vLLM would hold the base in full precision; set loading.quantization=none")
    dtype = str(lm.dtype).removeprefix("torch.")
    if dtype == "float64":
        raise UserError("rollouts.backend=vllm: vLLM does not compute in float64; set loading.dtype=float32 or bfloat16")
    rank = next((rank for rank in _RANKS if rank >= config.lora.rank), None)
    if rank is None:
        raise UserError(f"rollouts.backend=vllm: vLLM needs a lora.rank of at most {_RANKS[-1]}, not {config.lora.rank}")
    on_gpu = lm.device.type == "cuda"
    options: dict[str, Any] = (
        {"gpu_memory_utilization": place.rollouts.vllm_memory or MEMORY, "enable_sleep_mode": True} if on_gpu else {}
    )
    try:
        engine = _engine(
            model=str(resolve(config.model)),
            revision=config.loading.revision,
            trust_remote_code=config.loading.trust_remote_code,
            dtype=dtype,
            enforce_eager=not on_gpu,
            enable_lora=True,
            max_lora_rank=rank,
            max_loras=1,
            max_model_len=-1,  # as many as fit
            logprobs_mode="processed_logprobs",  # of the distribution that is drawn from
            skip_tokenizer_init=True,
            **options,
        )
    except (
        ValueError,
        RuntimeError,
        OSError,
        AssertionError,
        NotImplementedError,
    ) as error:  # as vLLM says that a model, or memory, is wrong
        raise UserError(
            f"rollouts.backend=vllm: vLLM does not start with {config.model!r}: {' '.join(str(error).split()):.300}"
        ) from error
    return VllmSampler(lm, engine, place.folder, sleeps=on_gpu)


def _engine(**options: Any) -> Any:
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # in this process
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        from vllm import LLM  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"rollouts.backend=vllm needs vLLM, which is not installed here ({' '.join(str(error).split()):.100}): "
            "pip install 'markovlm[vllm]', or use a server (rollouts.backend=server)"
        ) from error
    return LLM(**options)


def _wanted(lm: LanguageModel, decoding: Decoding, key: tuple[str | int, ...]) -> Any:
    """The distribution to draw from, in vLLM's words. Stop strings are found afterwards: vLLM has no tokenizer here."""
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

    length = decoding.max_tokens
    return SamplingParams(
        max_tokens=length,
        min_tokens=length if decoding.fixed_length else 0,  # masks the end tokens until then
        stop_token_ids=list(lm.terminators),
        ignore_eos=True,  # those above end a CoT, no others
        temperature=decoding.temperature,
        seed=torch_seed(*key),
        logprobs=1,
        detokenize=False,
    )
