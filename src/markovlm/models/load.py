"""Loading any causal language model of transformers, with a fresh or a trained LoRA adapter on it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from markovlm.config.model import Loading, Lora
from markovlm.content import first_few
from markovlm.errors import UserError
from markovlm.models.adapters import LOAD_ERRORS, NOT_TENSORS, with_adapter
from markovlm.models.folding import fold_layers
from markovlm.models.language import LanguageModel
from markovlm.models.probes import caching_of, can_share, enable_checkpointing, takes_back
from markovlm.models.quantization import check_unquantized, quantized_arguments, settle
from markovlm.models.registry import EMBEDDED, FETCHED, KNOWN, check_path, resolve

if TYPE_CHECKING:
    from markovlm.models.sharding import Shards

_EMBEDDED_THREADS = 1  # more wait for each other at every small matrix (docs/findings.md)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


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
    shards: Shards | None = None,
) -> LanguageModel:
    """Load a base model; with `lora` a fresh trainable adapter, with `adapter` a saved one (trainable if `lora` is given too).

    `shards`: deal the weights over its processes, all of which load this model now. Only the first reads its weights.
    Raises UserError in one line if the model or adapter is missing, gated, or not a causal LM.
    """
    device = pick_device(local_device or loading.device)
    if name in EMBEDDED and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), _EMBEDDED_THREADS))
    tokenizer = load_tokenizer(name, loading)
    if shards is None:
        model, terminators, has_adapter = _with_weights(name, loading, tokenizer, device, device, lora, adapter, seed)
        if has_adapter:
            fold_layers(model)
    else:
        model, terminators, has_adapter = _dealt(name, loading, tokenizer, shards, lora, adapter, seed)
    lm = LanguageModel(name, model, tokenizer, terminators, has_adapter, quantization=loading.quantization, shards=shards)
    lm.model.eval()
    _check_head(lm)
    lm.caching = caching_of(lm)
    lm.takes_back = takes_back(lm)
    lm.shares_keys = can_share(lm)
    if loading.gradient_checkpointing and lm.adapter_parameters():
        lm.checkpointing = enable_checkpointing(lm)
    return lm


def load_tokenizer(name: str, loading: Loading) -> Any:
    """The tokenizer alone. Raises UserError as `load_model` does."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers import AutoTokenizer

    hub_logging.set_verbosity_error()  # retries while the Hub can't be reached; the error says it once
    check_path(name)
    source = resolve(name)
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=loading.trust_remote_code, revision=loading.revision)
    except LOAD_ERRORS as error:
        raise UserError(explain_load_error(name, error)) from error


def _with_weights(
    name: str,
    loading: Loading,
    tokenizer: Any,
    device: torch.device,
    for_device: torch.device,
    lora: Lora | None,
    adapter: Path | None,
    seed: int,
) -> tuple[Any, tuple[int, ...], bool]:
    """The model with its adapter on a device, the ids that end a text, and whether there is an adapter."""
    base = _load_base(name, loading, device, for_device)
    model, has_adapter = with_adapter(base, name, lora, adapter, seed)
    return model, _terminators(base, tokenizer), has_adapter


def _dealt(
    name: str, loading: Loading, tokenizer: Any, shards: Shards, lora: Lora | None, adapter: Path | None, seed: int
) -> tuple[Any, tuple[int, ...], bool]:
    """As `_with_weights`, over several processes: the first loads the model on its CPU, and all get their parts of it."""
    from markovlm.models.sharding import parts_to_deal

    base = _load_base(name, loading, torch.device("meta"), shards.device)
    parts_to_deal(name, base)  # before anybody reads weights
    empty, _ = with_adapter(base, name, lora, adapter, seed)
    found: Any = None
    failed = None
    if shards.rank == 0:
        try:
            plain = loading.model_copy(update={"attention": "auto"})  # nothing is computed with this one, and flash needs a GPU
            found = _with_weights(name, plain, tokenizer, torch.device("cpu"), shards.device, lora, adapter, seed)
        except UserError as error:
            failed = str(error)
    failed, terminators, has_adapter = shards.gather((failed, *(found[1:] if found else ((), False))))[0]
    if failed is not None:
        raise UserError(failed)
    shards.deal(name, empty, found and found[0])
    return empty, terminators, has_adapter


def _load_base(name: str, loading: Loading, device: torch.device, for_device: torch.device) -> Any:
    """The frozen model on `device`; on the meta device without weights. `loading.dtype=auto` asks for what suits `for_device`."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    source = resolve(name)
    dtype = _DTYPES.get(loading.dtype) or (torch.bfloat16 if for_device.type == "cuda" else torch.float32)
    kwargs: dict[str, Any] = {"trust_remote_code": loading.trust_remote_code, "revision": loading.revision}
    model: Any
    attention = {} if loading.attention == "auto" else {"attn_implementation": loading.attention}
    if dtype == torch.float64:
        attention["experts_implementation"] = "eager"  # torch multiplies grouped matrices in float32 at most
    quantized = quantized_arguments(name, loading.quantization, dtype, device)
    try:
        config = _without_dropout(AutoConfig.from_pretrained(source, **kwargs))
        check_unquantized(name, config, loading.quantization)
        if device.type == "meta":
            code = {"trust_remote_code": loading.trust_remote_code}
            with device:
                model = AutoModelForCausalLM.from_config(config, dtype=dtype, **attention, **code)
        else:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, config=config, dtype=dtype, output_loading_info=True, **quantized, **attention, **kwargs
            )
            model, found = loaded
            check_whole(name, found["missing_keys"])
    except LOAD_ERRORS as error:
        raise UserError(explain_load_error(name, error)) from error
    if quantized:
        settle(name, model)
    else:
        model.to(device)
    return model.requires_grad_(False)


def _without_dropout(config: Any) -> Any:
    """The base's own dropout off (GPT-2 has 0.1): the training pass must score the distribution that was sampled."""
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        for key, value in vars(part).items():
            if isinstance(value, float) and ("dropout" in key or key.endswith("_pdrop")):
                setattr(part, key, 0.0)
    return config


def explain_load_error(name: str, error: Exception) -> str:
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
    if "Couldn't instantiate the backend tokenizer" in text:
        return f"model: {name!r} has no tokenizer that transformers can read (tokenizer.json, or tokenizer.model with sentencepiece){_again(name)}"
    if "UnpicklingError" in kinds:
        return f"model: {name!r}: {NOT_TENSORS.format('pytorch_model.bin')}"
    if "SafetensorError" in kinds:
        return f"model: {name!r}: a .safetensors file is damaged, or stands for one that Git LFS has not fetched ({text:.160}){_again(name)}"
    if "ignore_mismatched_sizes" in text:
        return f"model: {name!r}: the weights do not have the shapes that its config.json gives"
    again = _again(name) if isinstance(error, OSError) else ""
    return f"model: {name!r} cannot be loaded as a causal language model: {_first_sentences(text)}{again}"


def _again(name: str) -> str:
    """What helps where the directory of a fetched model is damaged."""
    return f"; delete {KNOWN[name].path} and it is fetched again" if name in FETCHED else ""


def _first_sentences(text: str, most: int = 300) -> str:
    """As many as fit; the first one is cut if it has to be."""
    first, *others = re.split(r"(?<=[.!?]) (?=[A-Z])", text)
    kept = f"{first:.{most}}"
    for sentence in others:
        if len(kept) + 1 + len(sentence) > most:
            break
        kept += f" {sentence}"
    return kept


def check_whole(name: str, missing: Collection[str]) -> None:
    """UserError where weights of the model are in none of its files: transformers draws them at random and says so in a warning."""
    if missing:
        raise UserError(f"model: {name!r} lacks {len(missing)} of its weights ({first_few(sorted(missing), 3)}){_again(name)}")


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


@torch.no_grad()
def _check_head(lm: LanguageModel) -> None:
    """Decoder + head must give the model's own logits: an architecture with another output path is refused, not mis-scored."""
    head = lm.causal_lm.get_output_embeddings()
    if head is None or hasattr(head, "lora_A"):
        raise UserError(f"model: {lm.name!r}: the output head must exist and carry no adapter (lora.targets)")
    ids = torch.tensor([[lm.pad_id, 1 % lm.vocabulary, 2 % lm.vocabulary]], device=lm.device)
    ours = lm.logits(lm.decode(ids, use_cache=False).last_hidden_state)
    theirs = lm.causal_lm(input_ids=ids, use_cache=False).logits.to(ours.dtype)
    tolerance = 1e-4 if theirs.dtype == ours.dtype and lm.exact else 5e-2
    if not theirs.isfinite().all():
        raise UserError(
            f"model: {lm.name!r} gives logits that are not finite; its weights are damaged, or loading.dtype is too narrow"
        )
    gap = (ours - theirs).abs().max().item()
    if not gap <= tolerance * max(1.0, theirs.abs().max().item()):
        raise UserError(
            f"model: {lm.name!r} computes its logits in a way markovlm does not know (gap {gap:.3g}); please report the architecture"
        )
