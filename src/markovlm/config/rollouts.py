"""Section: how CoTs are sampled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from markovlm.config.base import Section
from markovlm.config.schedule import Schedule
from markovlm.errors import UserError
from markovlm.registry import SAMPLERS


class RolloutConfig(Section):
    """How CoTs are sampled."""

    backend: str = Field(
        "auto",
        description="what samples the training CoTs: hf, the KV-cache sampler in the trainer's own model; vllm, vLLM in"
        " the same process; server, a running vLLM server (vllm and server get the adapter after every "
        "update: docs/samplers.md); auto is hf",
    )
    server_url: str | None = Field(None, description="address of the vLLM server, for backend=server: http://HOST:8000")
    adapter_dir: str | None = Field(
        None,
        description="where the adapter is written for a sampler with its own weights; default: `.sampler.tmp` in the "
        "run directory",
    )
    vllm_memory: float | None = Field(
        None, gt=0, lt=1, description="share of the GPU's memory for backend=vllm, released while it sleeps; default: 0.3"
    )
    importance: Literal["auto", "off", "token", "sequence"] = Field(
        "auto",
        description="correct the gradient by the truncated ratio of the trainer's to the sampler's probability, per token or per CoT; "
        "auto: off for hf, token for others",
    )
    importance_cap: float | None = Field(2.0, ge=1, description="value at which the ratio is truncated; null: never")
    gap_tolerance: float | None = Field(
        None,
        gt=0,
        description="largest mean difference between the sampler's and the trainer's log-prob of a token (nats); default: by the type of the "
        "weights, 1e-3 in float32, 0.1 in bfloat16",
    )
    questions_per_step: int = Field(4, ge=1, description="questions per optimisation step")
    group_size: int = Field(16, ge=1, description="B: CoTs sampled per question")
    max_cot_tokens: int | None = Field(None, ge=1, description="CoT budget in tokens; default: the task's")
    fixed_length: bool = Field(False, description="every CoT has exactly max_cot_tokens (end tokens masked), as in the paper")
    temperature: Schedule = Field(
        Schedule.constant(1.0), description="sampling temperature tau; the logits are divided by it everywhere"
    )
    stop: tuple[str, ...] = Field((), description="strings that end a CoT, in addition to the model's end tokens")
    batch_tokens: int = Field(
        32768, ge=64, description="prompt + CoT tokens sampled at once; remaining questions wait their turn"
    )

    static_cache: Literal["auto", "on", "off"] = Field(
        "auto",
        description="decode with a cache of fixed shape, on a GPU recorded once as a CUDA graph and replayed for every "
        "token; auto: on a GPU, if the model allows it",
    )

    @property
    def foreign(self) -> bool:
        """Whether the sampler has weights of its own."""
        return self.backend not in ("auto", "hf")

    @property
    def correction(self) -> Literal["off", "token", "sequence"]:
        """`importance` with `auto` resolved."""
        if self.importance == "auto":
            return "token" if self.foreign else "off"
        return self.importance

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, value: str) -> str:
        if value != "auto" and value not in SAMPLERS:  # asked without importing it: that would cost a second
            try:
                SAMPLERS.find(value)
            except UserError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("server_url")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        if value is not None and set("@?#") & set(value):  # config.yaml is shown to others; the message does not show it either
            raise ValueError("must be an address without user, password or parameters, such as http://HOST:8000")
        return value

    @model_validator(mode="after")
    def _own_weights(self) -> RolloutConfig:
        if self.backend == "server" and not self.server_url:
            raise ValueError("backend=server needs server_url, the address of a running vLLM server: http://HOST:8000")
        if self.server_url and self.backend != "server":
            raise ValueError("server_url has no effect without backend=server; leave one of them out")
        if self.vllm_memory is not None and self.backend != "vllm":
            raise ValueError("vllm_memory has no effect without backend=vllm; leave one of them out")
        if self.adapter_dir and not self.foreign:
            raise ValueError("adapter_dir has no effect with backend=hf, which samples from the trainer's own weights")
        return self

    @model_validator(mode="after")
    def _combinations(self) -> RolloutConfig:
        if self.temperature.minimum <= 0:
            raise ValueError("temperature must be positive; greedy decoding is an evaluation setting")
        if self.fixed_length and self.stop:
            raise ValueError("stop has no effect with fixed_length=true; leave one of them out")
        return self
