"""A LoRA adapter on a base model: a fresh one, or a saved one; and saving it."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from markovlm.config.model import Lora, named_targets
from markovlm.content import system_error
from markovlm.errors import UserError
from markovlm.models.language import LanguageModel

LOAD_ERRORS = (
    OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError, AttributeError, SafetensorError, pickle.UnpicklingError,
)  # fmt: skip
NOT_TENSORS = "{} is not a file of tensors, and nothing else is ever unpickled"
_LACKS = "Found missing adapter keys"  # how PEFT begins to say that tensors of a saved adapter are missing
_PASSED_BY = "dt_proj"  # Mamba's layers read its weight themselves: an adapter on it would do nothing
_NO_LORA_IN_MAMBA = ("out_proj", "conv1d")  # PEFT refuses them in these families: their fast kernels pass the layer by
_MAMBA_FAMILIES = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")


class BadAdapter(UserError):
    """A saved adapter that can't be used with this model."""

    def __init__(self, adapter: Path, reason: str):
        super().__init__(f"{adapter}: {reason}")
        self.reason = reason


def with_adapter(base: Any, name: str, lora: Lora | None, adapter: Path | None, seed: int) -> tuple[Any, bool]:
    """The model with a saved adapter, or else a fresh one, or none: (model, is there one). Raises UserError, BadAdapter."""
    with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5.23 for a property that it has deprecated
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*meta parameter in the current model", category=UserWarning)  # dealt: later
        warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)  # of a file that is refused
        warnings.filterwarnings("error", message=_LACKS)
        return (_saved(base, name, lora, adapter), True) if adapter is not None else _fresh(base, name, lora, seed)


def _saved(base: Any, name: str, lora: Lora | None, adapter: Path) -> Any:
    from peft import PeftModel

    if not (adapter / "adapter_config.json").exists():
        raise BadAdapter(adapter, "no adapter_config.json, so not a PEFT adapter directory")
    try:
        # autocast: float32 before the saved weights are read; through a bf16 adapter they would lose bits on resume
        model = PeftModel.from_pretrained(base, str(adapter), is_trainable=lora is not None, autocast_adapter_dtype=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except pickle.UnpicklingError as error:  # torch advises to load it all the same
        raise BadAdapter(adapter, NOT_TENSORS.format("adapter_model.bin")) from error
    except (
        Exception
    ) as error:  # whatever PEFT, safetensors and the unpickler make of a file that is no adapter, or another model's
        said = " ".join(str(error).split())
        raise BadAdapter(adapter, f"this adapter does not fit the model {name!r}: {said:.200}") from error
    model = _full_precision_adapter(model)
    fault = check_adapter(model)
    if fault:
        raise BadAdapter(adapter, fault)
    return model


def set_adapter(model: Any, directory: Path, device: str) -> str | None:
    """Put saved weights into the adapter that `model` has. What is wrong, where some are missing."""
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    result: Any = set_peft_model_state_dict(model, load_peft_weights(str(directory), device=device))
    lacks = [name for name in result.missing_keys if ".lora_" in name]
    return f"{len(lacks)} tensors of the adapter are missing, the first is {lacks[0]}" if lacks else None


def check_adapter(model: Any) -> str | None:
    """What is wrong with an adapter's weights."""
    weights = {name: weight for name, weight in model.named_parameters() if ".lora_" in name and not weight.is_meta}
    if not weights or bool(torch.stack([weight.isfinite().all() for weight in weights.values()]).all()):
        return None
    bad = [name for name, weight in weights.items() if not bool(weight.isfinite().all())]
    return f"{len(bad)} of the {len(weights)} tensors of its adapter are not finite (NaN or infinite), the first is {bad[0]}"


def _fresh(base: Any, name: str, lora: Lora | None, seed: int) -> tuple[Any, bool]:
    from peft import LoraConfig, get_peft_model

    if lora is None:
        return base, False
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    scale: Any = lora.alpha  # PEFT's annotation says int, its arithmetic takes any number
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=scale,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=_left_out(base) if targets == "all-linear" else None,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[], enabled=True):
        torch.manual_seed(seed)
        try:
            model = get_peft_model(base, config, autocast_adapter_dtype=False)
        except ValueError as error:
            raise UserError(
                f"lora.targets: {lora.targets!r} does not fit {name!r}: {' '.join(str(error).split()):.200}"
            ) from None
    missed = [
        name
        for name in named_targets(lora.targets)
        if not any(_is_target(module, name) for module in model.targeted_module_names)
    ]
    if missed:
        raise UserError(f"lora.targets: {name!r} has no linear layer named {', '.join(missed)}")
    return _full_precision_adapter(model), True


def _left_out(base: Any) -> list[str] | None:
    """Linear layers that can't carry an adapter: routers, what Mamba passes by, and what PEFT refuses there."""
    odd = [
        name
        for name, module in base.named_modules()
        if name.endswith(f".{_PASSED_BY}") or (isinstance(module, nn.Linear) and _is_a_router(module))
    ]
    mamba = _NO_LORA_IN_MAMBA if base.config.model_type in _MAMBA_FAMILIES else ()
    return [*odd, *mamba] or None


@torch.no_grad()
def _is_a_router(module: nn.Linear) -> bool:
    """A linear layer of some model's own whose output is more than the product."""
    if not type(module).__module__.startswith("transformers.models."):
        return False
    try:
        return not isinstance(module(module.weight.new_zeros(1, module.in_features)), torch.Tensor)
    except Exception:  # it may want more than its input
        return True


def _is_target(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _full_precision_adapter(model: Any) -> Any:
    """Adapter weights in float32 over a bf16 base (float64 where the base is float64)."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
    return model


def save_adapter(lm: LanguageModel, directory: Path) -> None:
    """PEFT's two files, as its `load_adapter` and vLLM read them. Raises OSError if they can't be written."""
    # PEFT's empty model card takes longer than all the rest; `markovlm export` writes a real one
    lm.model.create_or_update_model_card = lambda *_: None
    try:
        # the embeddings are never trained; asking PEFT to decide would make it look the base model up on the Hub
        lm.model.save_pretrained(str(directory), save_embedding_layers=False)
    except SafetensorError as error:
        raise system_error(error) or OSError(None, str(error)) from error
    _sort_targets(directory / "adapter_config.json")


def _sort_targets(path: Path) -> None:
    """PEFT keeps the target modules in a set: their order in the file would change from process to process."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
        path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
