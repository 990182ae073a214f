"""Random tiny models of the families that transformers ships: what each needs beside the common sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from support.tiny import BOS, EOS, PAD, char_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_MLA = {
    "num_key_value_heads": 2,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
}
_DEEPSEEK = {
    **_MLA,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
}
_LINEAR_QWEN = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
_MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 2}


@dataclass(frozen=True)
class Family:
    """How a tiny model of a family is made. `targets`: of LoRA, where all-linear does not do."""

    config: str
    model: str
    sizes: dict[str, Any] = field(default_factory=dict)
    targets: str | tuple[str, ...] = "all-linear"
    common: bool = True  # does it take the common sizes?


def _of(stem: str, sizes: dict[str, Any] | None = None, *, text: bool = False, **more: Any) -> Family:
    return Family(f"{stem}{'Text' if text else ''}Config", f"{stem}ForCausalLM", sizes or {}, **more)


FAMILIES: dict[str, Family] = {
    "llama": _of("Llama"),
    "mistral": _of("Mistral", {"sliding_window": 6}),
    "ministral": _of("Ministral", {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}),
    "qwen2": _of("Qwen2"),
    "qwen3": _of("Qwen3"),
    "gemma": _of("Gemma"),
    "gemma2": _of("Gemma2", {"sliding_window": 6, "query_pre_attn_scalar": 8}),
    "gemma3": _of(
        "Gemma3",
        {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8},
        text=True,
    ),
    "gemma3n": _of(
        "Gemma3n",
        {
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
            "num_kv_shared_layers": 0,
            "vocab_size_per_layer_input": 100,
            "hidden_size_per_layer_input": 4,
            "laurel_rank": 4,
            "altup_num_inputs": 2,
            "activation_sparsity_pattern": [0.0, 0.0],
        },
        text=True,
    ),
    "phi": _of("Phi", {"num_key_value_heads": 2}),
    "phi3": _of("Phi3"),
    "stablelm": _of("StableLm"),
    "starcoder2": _of("Starcoder2"),
    "olmo": _of("Olmo"),
    "olmo2": _of("Olmo2"),
    "olmo3": _of("Olmo3", {"sliding_window": 6}),
    "cohere": _of("Cohere"),
    "cohere2": _of("Cohere2", {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}),
    "granite": _of("Granite", {"logits_scaling": 2.0}),
    "glm": _of("Glm"),
    "glm4": _of("Glm4"),
    "smollm3": _of("SmolLM3"),
    "exaone4": _of("Exaone4", {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}),
    "helium": _of("Helium"),
    "nemotron": _of("Nemotron"),
    "seed_oss": _of("SeedOss"),
    "gpt2": Family("GPT2Config", "GPT2LMHeadModel", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 256}, common=False),
    "gpt_neo": Family(
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        {
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "max_position_embeddings": 256,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 6,
        },
        common=False,
    ),
    "gpt_neox": _of("GPTNeoX"),
    "gptj": Family(
        "GPTJConfig",
        "GPTJForCausalLM",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 256, "rotary_dim": 4},
        common=False,
    ),
    "opt": Family(
        "OPTConfig",
        "OPTForCausalLM",
        {
            "hidden_size": 16,
            "ffn_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 256,
            "word_embed_proj_dim": 16,
        },
        common=False,
    ),
    "bloom": Family("BloomConfig", "BloomForCausalLM", {"hidden_size": 16, "n_layer": 2, "n_head": 2}, common=False),
    "falcon": Family(
        "FalconConfig",
        "FalconForCausalLM",
        {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 256},
        common=False,
    ),
    "mpt": Family("MptConfig", "MptForCausalLM", {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 256}, common=False),
    "mixtral": _of("Mixtral", _EXPERTS),
    "qwen2_moe": _of(
        "Qwen2Moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    ),
    "qwen3_moe": _of("Qwen3Moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
    "olmoe": _of("Olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    "phimoe": _of("Phimoe", _EXPERTS),
    "granitemoe": _of("GraniteMoe", _EXPERTS),
    "deepseek_v2": _of("DeepseekV2", {**_DEEPSEEK, "topk_method": "greedy"}),
    "deepseek_v3": _of("DeepseekV3", _DEEPSEEK),
    "glm4_moe": _of(
        "Glm4Moe",
        {
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
    ),
    "gpt_oss": _of("GptOss", {**_EXPERTS, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}),
    "llama4": _of(
        "Llama4",
        {
            **_EXPERTS,
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 32,
            "attention_chunk_size": 64,
            "interleave_moe_layer_step": 1,
        },
        text=True,
    ),
    "jamba": _of(
        "Jamba",
        {
            "num_experts": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
        },
    ),
    "bamba": _of("Bamba", {**_MAMBA2, "attn_layer_indices": [1]}),
    "qwen3_next": _of(
        "Qwen3Next",
        {
            **_LINEAR_QWEN,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "falcon_h1": _of("FalconH1", {**_MAMBA2, "mamba_d_ssm": 32}),
    "granitemoehybrid": _of(
        "GraniteMoeHybrid", {**_MAMBA2, **_EXPERTS, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 16}
    ),
    "lfm2": _of("Lfm2", {"layer_types": ["conv", "full_attention"], "full_attn_idxs": [1]}),
    "recurrent_gemma": _of(
        "RecurrentGemma", {"block_types": ["recurrent", "attention"], "attention_window_size": 64, "lru_width": 16}
    ),
    "mamba": Family(
        "MambaConfig",
        "MambaForCausalLM",
        {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 8, "time_step_rank": 4},
        ("in_proj", "x_proj"),
        common=False,
    ),
    "mamba2": Family(
        "Mamba2Config",
        "Mamba2ForCausalLM",
        {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 4,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 8,
        },
        ("in_proj",),
        common=False,
    ),
    "rwkv": Family(
        "RwkvConfig",
        "RwkvForCausalLM",
        {"hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16, "intermediate_size": 32, "context_length": 256},
        common=False,
    ),
}


def save_family(name: str, directory: Path) -> Path:
    """Random weights large enough that every layer matters, saved as transformers saves them."""
    import transformers as hf

    family, tokenizer = FAMILIES[name], char_tokenizer()
    ids = {"vocab_size": len(tokenizer), "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "initializer_range": 0.2}
    sizes = {**(SIZES if family.common else {}), **ids, **family.sizes}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = getattr(hf, family.model)(getattr(hf, family.config)(**sizes))
        for parameter in model.parameters():
            if parameter.ndim < 2:  # norms and biases, which begin at 1 and 0
                parameter.data += 0.1 * torch.randn_like(parameter)
    model.generation_config.eos_token_id = EOS
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
