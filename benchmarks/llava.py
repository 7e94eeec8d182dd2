"""A random LLaVA of the true architecture, of any size, on MiniGuard's words: for measuring, not for answering."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from workbench.base import untrained
from workbench.models import quiet

PATCH = 14  # pixels


def write_llava(folder: Path, hidden: int = 768, layers: int = 8, image_size: int = 168) -> Path:
    """Write a checkpoint with its processor: by default 99 million parameters, 144 image tokens, 32,000 words in its vocabulary."""
    small = untrained()
    processor, tokenizer = small.processor, small.processor.tokenizer
    processor.image_processor.size = {"height": image_size, "width": image_size}
    processor.patch_size = PATCH
    tokenizer.model_max_length = 1024
    text = transformers.LlamaConfig(
        **small.model.config.text_config.to_diff_dict()
        | {
            "vocab_size": 32_000,
            "hidden_size": hidden,
            "intermediate_size": hidden * 8 // 3 // 64 * 64,
            "num_hidden_layers": layers,
            "num_attention_heads": hidden // 64,
            "num_key_value_heads": hidden // 64,
            "max_position_embeddings": 1024,
        }
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4, image_size=image_size, patch_size=PATCH
    )
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=small.model.config.image_token_id,
        image_seq_length=(image_size // PATCH) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    network = transformers.LlavaForConditionalGeneration(config)
    network.generation_config.update(
        max_new_tokens=16, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    with quiet():
        network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
