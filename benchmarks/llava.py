"""A random LLaVA of the true architecture, of any size, on MiniGuard's words.

For measuring, not for answering.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer

from workbench.models.vlm import VLM, quiet
from workbench.studies.base_model import untrained

PATCH = 14  # pixels
SPREAD = (
    1.8  # of random weights, in units of 1/√hidden: from about here on an answer depends on its query and its picture
)


def random_llava(
    text: transformers.LlamaConfig,
    vision: transformers.CLIPVisionConfig,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    vision_feature_layer: int = -1,
) -> VLM:
    """The model with random weights, made where it is to run, and a processor for pictures of its size.

    Every number in its vocabulary is a word: MiniGuard's come first, "w300" and so on follow, so that
    whatever it says can be read.
    """
    processor = _processor(vision.image_size, text.vocab_size)
    tokenizer = processor.tokenizer
    text.initializer_range = SPREAD / text.hidden_size**0.5
    text.update({name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")})
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=vision_feature_layer,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    with torch.device(device), quiet():
        network = transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype)
    network.generation_config.update(
        max_new_tokens=16,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return VLM(network.eval().requires_grad_(False), processor, "base")


def write_llava(folder: Path, hidden: int = 768, layers: int = 8, image_size: int = 168) -> Path:
    """Write a checkpoint with its processor.

    By default 99 million parameters, 144 image tokens, 32,000 words in its vocabulary.
    """
    text = transformers.LlamaConfig(
        vocab_size=32_000,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 64 * 64,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=1024,
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=image_size,
        patch_size=PATCH,
    )
    vlm = random_llava(text, vision)
    with quiet():
        vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return folder


def _processor(image_size: int, vocabulary: int) -> transformers.LlavaProcessor:
    small = untrained().processor
    state = json.loads(small.tokenizer.backend_tokenizer.to_str())
    words = state["model"]["vocab"]
    words |= {f"w{number}": number for number in range(len(words), vocabulary)}
    names = ("pad_token", "unk_token", "bos_token", "eos_token")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        **{name: getattr(small.tokenizer, name) for name in names},
        additional_special_tokens=["<answer>", "<image>"],
        padding_side="left",
        model_max_length=1024,
    )
    small.image_processor.size = {"height": image_size, "width": image_size}
    return transformers.LlavaProcessor(
        image_processor=small.image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=small.chat_template,
    )
