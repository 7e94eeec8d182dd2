"""The shapes of some models that people use, so that their memory can be planned without a network."""

from __future__ import annotations

from collections.abc import Callable

import transformers


def _llava(hidden: int, mlp: int, layers: int, heads: int) -> transformers.LlavaConfig:
    """LLaVA-1.5 with a Llama of this shape, and CLIP ViT-L/14 at 336 pixels."""
    vision = transformers.CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    text = transformers.LlamaConfig(
        vocab_size=32064, hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads
    )
    return transformers.LlavaConfig(vision_config=vision, text_config=text, image_seq_length=576)


def _qwen(
    hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, vocabulary: int, tied: bool
) -> transformers.Qwen2_5_VLConfig:
    """Qwen2.5-VL with a language model of this shape."""
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "out_hidden_size": hidden,
    }
    text = {
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": tied,
    }
    return transformers.Qwen2_5_VLConfig(vision_config=vision, text_config=text, tie_word_embeddings=tied)


def _smolvlm_256m() -> transformers.Idefics3Config:
    text = transformers.LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        vocab_size=49280,
        tie_word_embeddings=False,
    )
    vision = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    }
    return transformers.Idefics3Config(
        vision_config=vision, text_config=text, scale_factor=4, tie_word_embeddings=False
    )


# by hub id
KNOWN: dict[str, Callable[[], transformers.PreTrainedConfig]] = {
    "HuggingFaceTB/SmolVLM-256M-Instruct": _smolvlm_256m,
    "Qwen/Qwen2.5-VL-3B-Instruct": lambda: _qwen(2048, 11008, 36, 16, 2, 151936, tied=True),
    "llava-hf/llava-1.5-7b-hf": lambda: _llava(4096, 11008, 32, 32),
    "Qwen/Qwen2.5-VL-7B-Instruct": lambda: _qwen(3584, 18944, 28, 28, 4, 152064, tied=False),
    "llava-hf/llava-1.5-13b-hf": lambda: _llava(5120, 13824, 40, 40),
}
