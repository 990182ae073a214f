"""GGUF files: quantized weights with their tokenizer in one file, turned into a directory that transformers loads, dequantized.

transformers reads the file; what it lacks is added here: the rule by which some vocabularies split digits, plain errors, and a directory
without a `quantization_config` (which could not be saved, trained, or loaded without the file).
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markovlm.content import first_few
from markovlm.errors import UserError

FORMAT = 1  # of what `convert` writes: directories of another one are made again
_EXACT = 2_000_000_000  # parameters up to which a directory is in float32, which holds what a quantized block means exactly; bfloat16 above
# `tokenizer.ggml.pre` of vocabularies whose merges were learned with each digit apart and GPT-2's rule otherwise (llama.cpp, llama-vocab.cpp)
_DIGITS_APART = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_AS_GPT2 = {None, "gpt-2", "gpt2", "default"}
_MAGIC = b"GGUF"
_OTHER_WEIGHTS = ("*.safetensors", "*.bin")


def gguf_file(model: str) -> Path | None:
    """The GGUF file that a path names: itself, or the only one in a directory without weights of another kind. None: no GGUF.

    UserError for a directory with several, and for a file that only has the name.
    """
    path = Path(model).expanduser()
    if path.is_dir() and not any(next(path.glob(kind), None) for kind in _OTHER_WEIGHTS):
        files = sorted(path.glob("*.gguf"))
        if len(files) > 1:
            raise UserError(
                f"model: {model!r} holds {len(files)} GGUF files; name one of them ({', '.join(f.name for f in files[:3])}, …)"
            )
        path = files[0] if files else path
    if path.suffix.lower() != ".gguf" or not path.is_file():
        return None
    with path.open("rb") as opened:
        if opened.read(4) != _MAGIC:
            raise UserError(f"model: {path} is not a GGUF file: it does not begin with {_MAGIC.decode()}")
    return path


def convert(file: Path, folder: Path, origin: str) -> dict[str, Any]:
    """Write the model and tokenizer of a GGUF file into `folder`, dequantized.

    Returns what is worth keeping of the file: `architecture`, `tensors` (GGUF type -> number of tensors), `parameters`,
    `dtype` (of the directory), `stated_licence` (in the file), and `notes`. Raises UserError in one line for a file that can't be used.
    """
    import torch
    import transformers
    from transformers.utils import logging

    facts = _facts(file, origin)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config_class = getattr(transformers, "GgufConfig", None)  # newer versions may keep the blocks packed if they are not told
    dequantize = {} if config_class is None else {"quantization_config": config_class(dequantize=True)}
    dtype = torch.float32 if facts["parameters"] <= _EXACT else torch.bfloat16
    try:
        with _alone(file) as (place, options), contextlib.redirect_stderr(io.StringIO()):  # bars of its own
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
            both: Any = transformers.AutoModelForCausalLM.from_pretrained(
                place, dtype=dtype, output_loading_info=True, **options, **dequantize
            )
            loaded, found = both
    except Exception as error:  # a damaged file ends in whatever the reader stumbled over
        raise UserError(
            f"model: {origin}: transformers can't read this GGUF file ({' '.join(str(error).split()):.200})"
        ) from error
    if missing := found["missing_keys"]:
        raise UserError(
            f"model: {origin}: this GGUF file lacks {len(missing)} of the model's weights ({first_few(sorted(missing), 3)})"
        )
    notes = _split_digits(tokenizer, facts.pop("pre"))
    config: Any = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {**facts, "dtype": str(dtype).removeprefix("torch."), "transformers": transformers.__version__, "notes": notes}


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A directory with the file and nothing else, where links can be made: neighbours such as a tokenizer.json would be read too."""
    options: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        try:
            (place / file.name).symlink_to(file.resolve())
        except OSError:
            place = file.parent
        yield place, options


def _facts(file: Path, origin: str) -> dict[str, Any]:
    """Architecture, licence, tensor types, and the tokenizer's rule of splitting; the weights are not read."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise UserError(f"model: {origin}: reading a GGUF file needs the package gguf: pip install gguf") from None

    def text(reader: Any, key: str) -> str | None:
        field = reader.get_field(key)
        return None if field is None else str(field.contents())

    try:
        reader = GGUFReader(file)
        types = dict(Counter(tensor.tensor_type.name for tensor in reader.tensors))
        parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
        parts = int(text(reader, "split.count") or 1)
        architecture, pre = text(reader, "general.architecture"), text(reader, "tokenizer.ggml.pre")
        kind, licence = text(reader, "tokenizer.ggml.model"), text(reader, "general.license")
    except Exception as error:  # truncated or damaged: numpy, struct and the reader itself complain in many ways
        raise UserError(f"model: {origin}: the GGUF file is damaged ({' '.join(str(error).split()):.160})") from error
    if parts > 1:
        raise UserError(f"model: {origin}: is one of {parts} parts of a GGUF file; join them first (llama-gguf-split --merge)")
    if architecture is None or kind is None:
        raise UserError(f"model: {origin}: the GGUF file has no {'architecture' if architecture is None else 'tokenizer'}")
    known = {"architecture": architecture, "tensors": types, "parameters": parameters, "stated_licence": licence}
    return {**known, "pre": pre if kind == "gpt2" else None}


def _split_digits(tokenizer: Any, pre: str | None) -> list[str]:
    """Split text as the merges were learned, where transformers does not know the rule; a note where nobody here does."""
    from tokenizers import pre_tokenizers

    if pre in _DIGITS_APART:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        return []
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS as known
    except ImportError:
        known = ()
    if pre in _AS_GPT2 or pre in known:
        return []
    return [
        f"its pre-tokenizer, tokenizer.ggml.pre={pre}, is unknown here: GPT-2's is used, and some words may be split differently"
    ]
