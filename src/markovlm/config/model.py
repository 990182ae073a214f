"""Sections: how the base model is loaded, adapted and asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from markovlm.config.base import Section


class Loading(Section):
    """How the base model is loaded."""

    device: str = Field("auto", description="cpu, cuda, cuda:N, mps, or auto (cuda if available, else cpu)")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = Field(
        "auto",
        description="data type of the base weights; auto: bfloat16 on cuda, float32 elsewhere; the adapter is always float32",
    )
    quantization: Literal["none", "nf4", "int8"] = Field(
        "none",
        description="quantization of the frozen base: nf4 (4 bits, double quantization) or int8 (LLM.int8), by "
        "bitsandbytes (extra `quantization`); the adapter stays float32",
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto", description="attention implementation; auto lets transformers choose"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute layers in the backward pass, also with shared prompts: less memory, more time"
    )
    trust_remote_code: bool = Field(False, description="run Python code found in the model repository")
    revision: str | None = Field(None, description="Hub revision of the model")

    @model_validator(mode="after")
    def _combinations(self) -> Loading:
        if self.attention == "eager" and self.dtype == "float64":
            raise ValueError(
                "attention=eager gives NaN with dtype=float64: transformers masks padding in float32 there; use sdpa"
            )
        if self.quantization != "none" and self.dtype == "float64":
            raise ValueError(
                f"dtype=float64 does not work with quantization={self.quantization}; use bfloat16, float16 or float32"
            )
        return self


def _module_names(value: Any) -> Any:
    """Of `lora.targets`: here, because pydantic's message for a union names its branches."""
    many = isinstance(value, list | tuple)
    names = list(cast("list[Any]", value)) if many else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"must be all-linear, or module names such as q_proj,v_proj (got {value!r:.80})")
    return tuple(names) if many else value


def named_targets(targets: str | tuple[str, ...]) -> tuple[str, ...]:
    """Targets that are names: not all-linear, not a pattern."""
    return () if isinstance(targets, str) else targets


class Lora(Section):
    """The adapter that is trained."""

    rank: int = Field(8, ge=1, description="rank of the LoRA matrices")
    alpha: float = Field(16, gt=0, description="LoRA scale: the update is alpha/rank * B A")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input, in the training pass only")
    targets: Annotated[str | tuple[str, ...], BeforeValidator(_module_names)] = Field(
        "all-linear", description="module names, or all-linear (all linear layers but the output head)"
    )


class Prompt(Section):
    """How questions are put to the model."""

    style: Literal["auto", "compact", "plain", "chat"] = Field(
        "auto", description="auto: compact for embedded models, chat where the tokenizer has a template, else plain"
    )
    answer_header: str | None = Field(None, description="text between CoT and answer; default ' Answer:' (compact: its token)")
    mention_budget: bool = Field(
        True,
        description="tell the model how many tokens the CoT may have, as the paper's prompts do; false: mention no "
        "number, since small models may take it for one of the question's (compact prompts never mention "
        "one)",
    )
