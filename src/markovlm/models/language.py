"""A causal language model with its tokenizer: the actor, and the frozen policy in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from markovlm.models.sharding import Shards

# padded: prompts of any lengths side by side. even: only of one length at a time. states: of one length, one token at a time and
# without gradient: scoring then computes every sequence whole. none: sampling does too.
Caching = Literal["padded", "even", "states", "none"]
# off. whole: only sequences that hold their own prompt. prompts: one pass over a prompt serves its group, as without checkpointing
Checkpointing = Literal["off", "whole", "prompts"]

MERGE_LIMIT = 200_000_000  # parameters up to which sampling may hold a merged copy of the adapted weights


@dataclass(slots=True, eq=False)
class LanguageModel:
    """A causal LM with its tokenizer: the actor with its adapter on, the frozen policy inside `frozen()`.

    The decoder (everything below the vocabulary) and the output head are called apart, so that the vocabulary
    projection runs only where a log-probability is needed.
    """

    name: str
    model: Any  # PeftModel, or the bare model where there is no adapter
    tokenizer: Any
    terminators: tuple[int, ...]  # ids that end a CoT or an answer, from the generation config
    has_adapter: bool
    adapter_on: bool = True  # False inside `frozen()` and `merged()`
    quantization: str = "none"  # of the base's linear layers
    # what `probes` found when the model was loaded
    caching: Caching = "padded"  # what the cache of past tokens can be trusted with
    checkpointing: Checkpointing = "off"  # are layers computed again in backward
    shards: Shards | None = None  # where the frozen weights are sharded over several processes
    takes_back: bool = False  # can tokens in the middle of the cache be hidden
    shares_keys: bool = False  # can rows look at one prefix without a copy of its keys each
    switches: list[Any] | None = None  # modules with an adapter to switch off, once they were looked for
    adapted: list[Any] | None = None  # layers with a LoRA adapter, likewise

    @property
    def causal_lm(self) -> Any:
        """The transformers model, with the adapter's layers in it."""
        return self.model.get_base_model() if self.has_adapter else self.model

    @property
    def device(self) -> torch.device:
        return next(self.causal_lm.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the base computes in: the type of its weights, those in 4 or 8 bits left out."""
        return next(parameter.dtype for parameter in self.causal_lm.parameters() if parameter.is_floating_point())

    @property
    def exact(self) -> bool:
        """Whether a sequence gets the same states to float32's rounding, however it is batched and split."""
        return self.dtype in (torch.float32, torch.float64) and self.quantization != "int8"

    @property
    def shares_prompts(self) -> bool:
        """Whether one pass over a prompt can serve all CoTs that follow it, with gradient."""
        if self.checkpointing == "whole" and torch.is_grad_enabled():
            return False
        return self.caching in ("padded", "even")

    @property
    def repeatable(self) -> bool:
        """Whether a sequence gets the same states each time it is in a batch; not with LoRA's dropout on."""
        adapters = self.model.peft_config.values() if self.has_adapter else ()
        return not (self.model.training and any(adapter.lora_dropout > 0 for adapter in adapters))

    @property
    def vocabulary(self) -> int:
        return self.causal_lm.get_output_embeddings().weight.shape[0]

    @property
    def context_tokens(self) -> int:
        """Tokens that fit: models say so under one of two names, some not at all."""
        config = self.causal_lm.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 1 << 30)

    @property
    def pad_id(self) -> int:
        """Any valid id: padded positions are never read."""
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else (self.terminators[0] if self.terminators else 0)

    @property
    def decoder(self) -> Any:
        """Everything below the vocabulary."""
        decoder = self.causal_lm.get_decoder()
        return self.causal_lm.model if decoder is self.causal_lm else decoder  # Llama 4 names itself

    def decode(self, input_ids: Tensor, **kwargs: Any) -> Any:
        """Final hidden states (and cache) of [N, L] ids; the output of transformers' decoder."""
        with self._whole_or_nothing():
            return self.decoder(input_ids=input_ids, **kwargs)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., H] -> [..., V] in float32 or better, with the model's own scaling of logits."""
        with self._whole_or_nothing():
            logits = self.causal_lm.get_output_embeddings()(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return _scale_logits(logits, self.causal_lm.config.get_text_config())

    @contextlib.contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        """A pass that breaks off (memory ran out) leaves nothing behind in sharded weights."""
        try:
            yield
        except Exception:
            self.recover()
            raise

    def recover(self) -> None:
        """Called after a pass, or its gradient, that failed."""
        if self.shards is not None:
            self.shards.recover()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The frozen policy u', pi': the same weights with the adapter off. Says nothing about gradients."""
        if not self.has_adapter or not self.adapter_on:
            yield
            return
        self._switch(on=False)
        try:
            yield
        finally:
            self._switch(on=True)

    def _switch(self, on: bool) -> None:
        """PEFT's own switch also walks over the gradient flags of all parameters: a tenth of the evaluation of a small model."""
        if self.switches is None:
            self.switches = [module for module in self.model.modules() if hasattr(module, "_disable_adapters")]
        for module in self.switches:
            module._disable_adapters = not on
        self.adapter_on = on

    @contextlib.contextmanager
    def merged(self) -> Iterator[None]:
        """The actor with its adapter folded into copies of the weights: one matrix product a layer instead of three.

        For sampling from small full-precision models only (in bf16 the fold would round); elsewhere it does nothing. The base
        tensors themselves are untouched and come back by reference, so the frozen policy keeps its bits.
        """
        if not self._can_merge():
            yield
            return
        layers = self._adapted_layers()
        originals = [layer.get_base_layer().weight.data for layer in layers]
        try:
            for layer, original in zip(layers, originals, strict=True):
                for adapter in layer.active_adapters:
                    layer.get_base_layer().weight.data = original + layer.get_delta_weight(adapter)
            with self.frozen():
                yield
        finally:
            for layer, original in zip(layers, originals, strict=True):
                layer.get_base_layer().weight.data = original

    def _can_merge(self) -> bool:
        if not (self.has_adapter and self.adapter_on) or torch.is_grad_enabled():
            return False
        if self.quantization != "none" or self.shards is not None:
            return False
        if not all(isinstance(getattr(layer.get_base_layer(), "weight", None), Tensor) for layer in self._adapted_layers()):
            return False  # experts in one block of weights have no single matrix to fold into
        weight = self.causal_lm.get_output_embeddings().weight
        size = sum(parameter.numel() for parameter in self.causal_lm.parameters())
        return size <= MERGE_LIMIT and weight.dtype in (torch.float32, torch.float64)

    def _adapted_layers(self) -> list[Any]:
        if self.adapted is None:
            self.adapted = [m for m in self.causal_lm.modules() if hasattr(m, "lora_A") and hasattr(m, "get_delta_weight")]
        return self.adapted

    @contextlib.contextmanager
    def training_mode(self) -> Iterator[None]:
        """LoRA dropout on, for the one pass that trains; everywhere else the model is in eval mode."""
        self.model.train()
        try:
            yield
        finally:
            self.model.eval()

    def adapter_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Trainable parameters by name, in a fixed order."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def base_parameters(self) -> list[tuple[str, Tensor]]:
        """Frozen weights by their name in the plain base model, adapter layers left out."""
        out = []
        for name, tensor in self.causal_lm.state_dict().items():
            if ".lora_" not in name and "lora_magnitude" not in name:
                out.append((name.replace(".base_layer", ""), tensor))
        return sorted(out, key=lambda pair: pair[0])


def _scale_logits(logits: Tensor, config: Any) -> Tensor:
    """What some architectures do after the output head: Cohere, Granite, Gemma 2."""
    if getattr(config, "logit_scale", None):
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None):
        logits = logits / config.logits_scaling
    if getattr(config, "final_logit_softcapping", None):
        cap = config.final_logit_softcapping
        logits = torch.tanh(logits / cap) * cap
    return logits
