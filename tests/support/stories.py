"""The stories260K weights (llama2.c format, see the README of the data folder) as a Llama checkpoint of transformers."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

BOS, EOS, UNKNOWN = 1, 2, 0


def convert(source: Path, directory: Path) -> Path:
    """Weights and tokenizer of `source` into `directory`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    raw = (source / "stories260K.bin").read_bytes()
    dim, hidden, layers, heads, kv_heads, vocab, length = struct.unpack("7i", raw[:28])
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=dim, intermediate_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=length, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=BOS, eos_token_id=BOS, pad_token_id=UNKNOWN,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.load_state_dict(_tensors(np.frombuffer(raw, np.float32, offset=28), config), strict=False)
    model.tie_weights()
    model.save_pretrained(directory)
    _tokenizer(source / "tok512.bin").save_pretrained(directory)
    return directory


def _tensors(flat: np.ndarray, c: Any) -> dict[str, Tensor]:
    """llama2.c's order: embedding, then each kind of tensor for all layers, then the final norm (RoPE tables are left)."""
    at = 0

    def take(*shape: int) -> Tensor:
        nonlocal at
        size = int(np.prod(shape))
        out = torch.from_numpy(flat[at : at + size].copy()).view(*shape)
        at += size
        return out

    layers, dim, hidden = c.num_hidden_layers, c.hidden_size, c.intermediate_size
    width = dim // c.num_attention_heads * c.num_key_value_heads
    state = {"model.embed_tokens.weight": take(c.vocab_size, dim)}
    kinds = [
        ("input_layernorm", (dim,)),
        ("self_attn.q_proj", (dim, dim)),
        ("self_attn.k_proj", (width, dim)),
        ("self_attn.v_proj", (width, dim)),
        ("self_attn.o_proj", (dim, dim)),
        ("post_attention_layernorm", (dim,)),
        ("mlp.gate_proj", (hidden, dim)),
        ("mlp.down_proj", (dim, hidden)),
        ("mlp.up_proj", (hidden, dim)),
    ]
    for kind, shape in kinds:
        for layer, weight in enumerate(take(layers, *shape)):
            if kind.endswith(("q_proj", "k_proj")):
                weight = _half_rotation(weight, shape[0] * c.num_attention_heads // dim)
            state[f"model.layers.{layer}.{kind}.weight"] = weight.contiguous()
    state["model.norm.weight"] = take(dim)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def _half_rotation(weight: Tensor, heads: int) -> Tensor:
    """Rows of q or k from interleaved RoPE pairs (0,1),(2,3).. to transformers' pairs (i, i + half)."""
    rows, dim = weight.shape
    return weight.view(heads, rows // heads // 2, 2, dim).transpose(1, 2).reshape(rows, dim)


def _tokenizer(path: Path) -> Any:
    """A BPE tokenizer; a merge's rank is the id of its result, as in the SentencePiece model."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = _pieces(path.read_bytes())
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces[259:]
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )


def _pieces(raw: bytes) -> list[str]:
    """tok512.bin: the longest length, then (score, length, bytes) of each piece; `▁` is written as a space there."""
    at, pieces = 4, []
    while at < len(raw):
        _, size = struct.unpack("fi", raw[at : at + 8])
        pieces.append(raw[at + 8 : at + 8 + size].decode())
        at += 8 + size
    names = {0: "<unk>", 1: "<s>", 2: "</s>"}
    return [names.get(i, piece if i < 259 else piece.replace(" ", "▁")) for i, piece in enumerate(pieces)]
