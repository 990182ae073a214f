"""Loading any causal language model of transformers, with a fresh or a trained LoRA adapter on it."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from markovlm.config.model import Loading, Lora
from markovlm.errors import UserError
from markovlm.models.registry import KNOWN, resolve

_LOAD_ERRORS = (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError, AttributeError, SafetensorError)
_EMBEDDED_THREADS = 1  # more wait for each other at every small matrix (docs/findings.md)
_MERGE_LIMIT = 200_000_000  # parameters up to which sampling may hold a merged copy of the adapted weights
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


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

    @property
    def causal_lm(self) -> Any:
        """The transformers model, with the adapter's layers in it."""
        return self.model.get_base_model() if self.has_adapter else self.model

    @property
    def device(self) -> torch.device:
        return next(self.causal_lm.parameters()).device

    @property
    def vocabulary(self) -> int:
        return self.causal_lm.get_output_embeddings().weight.shape[0]

    @property
    def pad_id(self) -> int:
        """Any valid id: padded positions are never read."""
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else (self.terminators[0] if self.terminators else 0)

    def decode(self, input_ids: Tensor, **kwargs: Any) -> Any:
        """Final hidden states (and cache) of [N, L] ids; the output of transformers' decoder."""
        return self.causal_lm.get_decoder()(input_ids=input_ids, **kwargs)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., H] -> [..., V] in float32 or better, with the model's own scaling of logits."""
        logits = self.causal_lm.get_output_embeddings()(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return _scale_logits(logits, self.causal_lm.config.get_text_config())

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The frozen policy u', pi': the same weights with the adapter off. Says nothing about gradients."""
        if not self.has_adapter or not self.adapter_on:
            yield
            return
        self.adapter_on = False
        try:
            with self.model.disable_adapter():
                yield
        finally:
            self.adapter_on = True

    @contextlib.contextmanager
    def merged(self) -> Iterator[None]:
        """The actor with its adapter folded into copies of the weights: one matrix product a layer instead of three.

        For sampling from small full-precision models only (in bf16 the fold would round); elsewhere it does nothing. The base
        tensors themselves are untouched and come back by reference, so the frozen policy keeps its bits.
        """
        if not self._can_merge():
            yield
            return
        layers = [
            module for module in self.causal_lm.modules() if hasattr(module, "lora_A") and hasattr(module, "get_delta_weight")
        ]
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
        weight = self.causal_lm.get_output_embeddings().weight
        size = sum(parameter.numel() for parameter in self.causal_lm.parameters())
        return size <= _MERGE_LIMIT and weight.dtype in (torch.float32, torch.float64)

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


def pick_device(device: str) -> torch.device:
    """Raises UserError for a device that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(1, device=picked)
    except Exception as error:  # torch raises RuntimeError, AssertionError or NotImplementedError by backend
        reason = str(error).splitlines()[0]
        raise UserError(f"loading.device: {device!r} cannot be used here ({reason:.120}); try cpu or auto") from None
    return picked


def load_model(
    name: str,
    loading: Loading,
    *,
    lora: Lora | None = None,
    adapter: Path | None = None,
    seed: int = 0,
    local_device: str | None = None,
) -> LanguageModel:
    """Load a base model; with `lora` a fresh trainable adapter, with `adapter` a saved one (trainable if `lora` is given too).

    Raises UserError in one line where the model or adapter is missing, gated, or not a causal LM.
    """
    device = pick_device(local_device or loading.device)
    if name in KNOWN and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), _EMBEDDED_THREADS))
    base, tokenizer = _load_base(name, loading, device)
    terminators = _terminators(base, tokenizer)
    for parameter in base.parameters():
        parameter.requires_grad_(False)
    model, has_adapter = _with_adapter(base, name, lora, adapter, seed)
    lm = LanguageModel(name, model, tokenizer, terminators, has_adapter)
    if loading.gradient_checkpointing:
        lm.causal_lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        lm.causal_lm.enable_input_require_grads()
    lm.model.eval()
    _check_head(lm)
    return lm


def load_tokenizer(name: str, loading: Loading) -> Any:
    """The tokenizer alone. Raises UserError as `load_model` does."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers import AutoTokenizer

    hub_logging.set_verbosity_error()  # retries while the Hub can't be reached; the error says it once
    source = resolve(name)
    _check_path(name, source)
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=loading.trust_remote_code, revision=loading.revision)
    except _LOAD_ERRORS as error:
        raise UserError(_explain_load_error(name, error)) from error


def _load_base(name: str, loading: Loading, device: torch.device) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    tokenizer = load_tokenizer(name, loading)
    source = resolve(name)
    dtype = _DTYPES.get(loading.dtype) or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    kwargs: dict[str, Any] = {"trust_remote_code": loading.trust_remote_code, "revision": loading.revision}
    attention = {} if loading.attention == "auto" else {"attn_implementation": loading.attention}
    try:
        config = _without_dropout(AutoConfig.from_pretrained(source, **kwargs))
        model: Any = AutoModelForCausalLM.from_pretrained(source, config=config, dtype=dtype, **attention, **kwargs)
    except _LOAD_ERRORS as error:
        raise UserError(_explain_load_error(name, error)) from error
    return model.to(device), tokenizer


def _without_dropout(config: Any) -> Any:
    """The base's own dropout off (GPT-2 has 0.1): the training pass must score the distribution that was sampled."""
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        for key, value in vars(part).items():
            if isinstance(value, float) and (key.endswith(("dropout", "_pdrop"))):
                setattr(part, key, 0.0)
    return config


def _check_path(name: str, source: str) -> None:
    """A local path that is plainly wrong, told before transformers tries the Hub."""
    path = Path(source).expanduser()
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists()
    if not looks_local or name in KNOWN:
        return
    if not path.exists():
        raise UserError(
            f"model: {name!r} does not exist; give a directory made by save_pretrained, a Hub id, or {' or '.join(KNOWN)}"
        )
    if not path.is_dir():
        raise UserError(f"model: {name!r} is a file; a directory made by save_pretrained is needed")
    if not (path / "config.json").exists():
        raise UserError(f"model: {name!r} has no config.json; a directory made by save_pretrained is needed")


def _explain_load_error(name: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    kinds = {type(e).__name__ for e in _causes(error)}
    if "GatedRepoError" in kinds or "gated repo" in text:
        return f"model: {name!r} is gated; accept its licence on the Hub and log in (`hf auth login`), or use another model"
    if "RepositoryNotFoundError" in kinds or "not a valid model identifier" in text:
        return f"model: {name!r} is not on the Hub (or is private and you are not logged in); check the id, or give a local directory"
    if "trust_remote_code" in text:
        return f"model: {name!r} needs code from its repository; read it, then allow it with loading.trust_remote_code=true"
    if (
        kinds & {"LocalEntryNotFoundError", "ConnectError", "ConnectionError", "OfflineModeIsEnabled", "ProxyError"}
        or "couldn't connect" in text.lower()
    ):
        return (
            f"model: {name!r} is not cached and the Hub cannot be reached; give a local directory, or one of: {', '.join(KNOWN)}"
        )
    return f"model: {name!r} cannot be loaded as a causal language model: {text:.300}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _terminators(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """End tokens of the generation config; the tokenizer's own where it names none."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    if ends is None:
        ends = tokenizer.eos_token_id
    if ends is None:
        return ()
    return tuple(ends) if isinstance(ends, list | tuple) else (int(ends),)


def _with_adapter(*arguments: Any) -> tuple[Any, bool]:
    with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5.23 for a property that it has deprecated
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return _attach_adapter(*arguments)


def _attach_adapter(base: Any, name: str, lora: Lora | None, adapter: Path | None, seed: int) -> tuple[Any, bool]:
    from peft import LoraConfig, PeftModel, get_peft_model

    if adapter is not None:
        if not (adapter / "adapter_config.json").exists():
            raise UserError(f"{adapter}: no adapter_config.json; a PEFT adapter directory is needed")
        try:
            # autocast: float32 before the saved weights are read; through a bf16 adapter they would lose bits on resume
            model = PeftModel.from_pretrained(base, str(adapter), is_trainable=lora is not None, autocast_adapter_dtype=True)
        except _LOAD_ERRORS as error:
            raise UserError(
                f"{adapter}: this adapter does not fit the model {name!r}: {' '.join(str(error).split()):.200}"
            ) from error
        return _full_precision_adapter(model), True
    if lora is None:
        return base, False
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    scale: Any = lora.alpha  # PEFT's annotation says int, its arithmetic takes any number
    config = LoraConfig(r=lora.rank, lora_alpha=scale, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[], enabled=True):
        torch.manual_seed(seed)
        try:
            model = get_peft_model(base, config, autocast_adapter_dtype=False)
        except ValueError as error:
            raise UserError(
                f"lora.targets: {lora.targets!r} does not fit {name!r}: {' '.join(str(error).split()):.200}"
            ) from None
    missed = [
        name for name in _named(lora.targets) if not any(_is_target(module, name) for module in model.targeted_module_names)
    ]
    if missed:
        raise UserError(f"lora.targets: {name!r} has no linear layer named {', '.join(missed)}")
    return _full_precision_adapter(model), True


def _named(targets: str | tuple[str, ...]) -> tuple[str, ...]:
    """Targets that are names: not all-linear, not a pattern."""
    return () if isinstance(targets, str) else targets


def _is_target(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _full_precision_adapter(model: Any) -> Any:
    """Adapter weights in float32 over a bf16 base (float64 where the base is float64)."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
    return model


@torch.no_grad()
def _check_head(lm: LanguageModel) -> None:
    """Decoder + head must give the model's own logits: an architecture with another output path is refused, not mis-scored."""
    head = lm.causal_lm.get_output_embeddings()
    if head is None or hasattr(head, "lora_A"):
        raise UserError(f"model: {lm.name!r}: the output head must exist and carry no adapter (lora.targets)")
    ids = torch.tensor([[lm.pad_id, 1 % lm.vocabulary, 2 % lm.vocabulary]], device=lm.device)
    ours = lm.logits(lm.decode(ids, use_cache=False).last_hidden_state)
    theirs = lm.causal_lm(input_ids=ids, use_cache=False).logits.to(ours.dtype)
    tolerance = (
        1e-4 if theirs.dtype == ours.dtype and next(lm.causal_lm.parameters()).dtype in (torch.float32, torch.float64) else 5e-2
    )
    gap = (ours - theirs).abs().max().item()
    if not gap <= tolerance * max(1.0, theirs.abs().max().item()):
        raise UserError(
            f"model: {lm.name!r} computes its logits in a way markovlm does not know (gap {gap:.3g}); please report the architecture"
        )
