"""Tiny random checkpoints of other true architectures, written to disk with their own processors, as on a hub."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from workbench.data import miniguard
from workbench.data.splits import miniguard_split

# Chat templates: the parts of a message, then how each architecture frames messages and writes a picture
PARTS = (
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}PICTURE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
)
IDEFICS_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    + PARTS.replace("PICTURE", "<image>").replace("{{ part", " {{ part")
    + "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    + PARTS.replace("PICTURE", "<image>\n")
    + " {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
QWEN_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    + PARTS.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>")
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA_TEMPLATE = (
    "<bos>{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    + PARTS.replace("PICTURE", "<start_of_image>")
    + "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def bpe_tokenizer(special: list[str], **names) -> transformers.PreTrainedTokenizerFast:
    """A small byte-level BPE tokenizer, trained on MiniGuard's own text."""
    examples = miniguard_split("train", 0, sizes=(150, 150))
    texts = [text for e in examples for text in (e.query, e.response, e.leak)] + [miniguard.REFUSAL]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet)
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _llava_tokenizer() -> transformers.PreTrainedTokenizerFast:
    special = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return bpe_tokenizer(
        special, **names, additional_special_tokens=special[4:], extra_special_tokens={"image_token": "<image>"}
    )


def _llava_config(tokenizer) -> dict:
    return {
        "vision_config": {"model_type": "clip_vision_model", **_vision(32)},
        "text_config": {"model_type": "llama", **_text(tokenizer)},
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "image_seq_length": 16,
    }


_CLIP = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
_LLAVA_PROCESSOR = {"patch_size": 8, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}


def write_llava(folder: Path) -> Path:
    """LLaVA-1.5: the patches of one picture without CLIP's class token; its own template for roles."""
    tokenizer = _llava_tokenizer()
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessorPil(**_CLIP), tokenizer, chat_template=LLAVA_TEMPLATE, **_LLAVA_PROCESSOR
    )
    config = transformers.LlavaConfig(vision_feature_layer=-2, **_llava_config(tokenizer))
    return _save(folder, transformers.LlavaForConditionalGeneration, config, processor)


def write_llava_next(folder: Path) -> Path:
    """LLaVA-NeXT: a picture whole and in tiles that fit its shape, with a token after each row of patches."""
    tokenizer, grid = _llava_tokenizer(), [[32, 64], [64, 32], [64, 64]]
    pictures = transformers.LlavaNextImageProcessorPil(image_grid_pinpoints=grid, **_CLIP)
    processor = transformers.LlavaNextProcessor(pictures, tokenizer, chat_template=LLAVA_TEMPLATE, **_LLAVA_PROCESSOR)
    config = transformers.LlavaNextConfig(image_grid_pinpoints=grid, **_llava_config(tokenizer))
    return _save(folder, transformers.LlavaNextForConditionalGeneration, config, processor)


def write_idefics3(folder: Path) -> Path:
    """Idefics3 (the architecture of SmolVLM): pictures in tiles, their tokens merged by pixel shuffle, Llama text."""
    grid = [f"<row_{i}_col_{j}>" for i in range(1, 4) for j in range(1, 4)]
    special = ["<pad>", "<unk>", "<|im_start|>", "<end_of_utterance>"]
    special += ["<image>", "<fake_token_around_image>", "<global-img>", *grid]
    tokenizer = bpe_tokenizer(
        special,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        additional_special_tokens=special[4:],
        extra_special_tokens={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )
    pictures = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=True
    )
    processor = transformers.Idefics3Processor(pictures, tokenizer, image_seq_len=4, chat_template=IDEFICS_TEMPLATE)
    config = transformers.Idefics3Config(
        vision_config=_vision(32),
        text_config={"model_type": "llama", **_text(tokenizer)},
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    return _save(folder, transformers.Idefics3ForConditionalGeneration, config, processor)


def _qwen_tokenizer() -> tuple[transformers.PreTrainedTokenizerFast, dict[str, int]]:
    """The tokenizer, and the ids of its special tokens by their names in configurations."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    special += ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = bpe_tokenizer(
        special,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=special[1:],
        chat_template=QWEN_TEMPLATE,
    )
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return tokenizer, dict(zip(names, tokenizer.convert_tokens_to_ids(special[3:]), strict=True))


_QWEN_TOWER = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 8,
    "out_hidden_size": 64,
}


def _qwen_pictures():
    return transformers.Qwen2VLImageProcessorPil(min_pixels=8 * 8, max_pixels=64 * 64, patch_size=8, merge_size=2)


def write_qwen2vl(folder: Path) -> Path:
    """Qwen2-VL: like Qwen2.5-VL below, with another vision tower."""
    tokenizer, special = _qwen_tokenizer()
    config = transformers.Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 8, "mlp_ratio": 2},
        text_config={**_text(tokenizer), "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}},
        **special,
    )
    return _save_parts(folder, transformers.Qwen2VLForConditionalGeneration, config, tokenizer, _qwen_pictures())


def write_qwen3vl(folder: Path) -> Path:
    """Qwen3-VL: the vision tower's intermediate features are added to early layers of the language model."""
    tokenizer, special = _qwen_tokenizer()
    config = transformers.Qwen3VLConfig(
        vision_config=_QWEN_TOWER | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        text_config={
            **_text(tokenizer),
            "head_dim": 16,
            "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True},
        },
        **special,
    )
    return _save_parts(folder, transformers.Qwen3VLForConditionalGeneration, config, tokenizer, _qwen_pictures())


def write_internvl(folder: Path) -> Path:
    """InternVL: pictures in tiles, patches merged by fours; a processor with a part for videos, like Qwen2.5-VL's."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
    names = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    tokenizer = bpe_tokenizer(
        special,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=special[1:],
        extra_special_tokens=dict(zip(names, special[3:], strict=True)),
        chat_template=QWEN_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n"),
    )
    pictures = transformers.GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=2
    )
    config = transformers.InternVLConfig(
        vision_config={**_vision(32), "image_size": [32, 32], "patch_size": [8, 8]},
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    _save_parts(folder, transformers.InternVLForConditionalGeneration, config, tokenizer, pictures)
    (folder / "processor_config.json").write_text('{"image_seq_length": 4, "processor_class": "InternVLProcessor"}')
    return folder


def write_paligemma(folder: Path) -> Path:
    """PaliGemma: attention is bidirectional within the prompt, and causal only in the answer."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<image>"]
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"}
    tokenizer = bpe_tokenizer(
        special, **names, additional_special_tokens=special[4:], extra_special_tokens={"image_token": "<image>"}
    )
    pictures = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    template = "{% for message in messages %}" + PARTS.replace("PICTURE", "<image>") + "{% endfor %}\n"
    config = transformers.PaliGemmaConfig(
        vision_config={**_vision(32), "projection_dim": 64},
        text_config={"model_type": "gemma", **_text(tokenizer), "head_dim": 16},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=64,
        hidden_size=64,
    )
    processor = transformers.PaliGemmaProcessor(pictures, tokenizer, chat_template=template)
    return _save(folder, transformers.PaliGemmaForConditionalGeneration, config, processor)


def write_qwen25vl(folder: Path) -> Path:
    """Qwen2.5-VL: pictures of any size as a flat list of patches, merged by fours.

    Tokens have positions in time, height and width. The processor's part for videos needs torchvision.
    """
    tokenizer, special = _qwen_tokenizer()
    config = transformers.Qwen2_5_VLConfig(
        vision_config=_QWEN_TOWER | {"window_size": 32, "fullatt_block_indexes": [1]},
        text_config={**_text(tokenizer), "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}},
        **special,
    )
    return _save_parts(folder, transformers.Qwen2_5_VLForConditionalGeneration, config, tokenizer, _qwen_pictures())


def write_gemma3(folder: Path) -> Path:
    """Gemma 3: picture tokens attend to one another in both directions; some layers have a sliding window."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    special += ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    tokenizer = bpe_tokenizer(
        special,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<end_of_turn>",
        additional_special_tokens=special[4:],
        extra_special_tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
    )
    pictures = transformers.Gemma3ImageProcessorPil(size={"height": 64, "width": 64})
    processor = transformers.Gemma3Processor(pictures, tokenizer, image_seq_length=16, chat_template=GEMMA_TEMPLATE)
    config = transformers.Gemma3Config(
        vision_config=_vision(64),
        text_config={
            **_text(tokenizer),
            "head_dim": 16,
            "sliding_window": 24,  # shorter than a prompt
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 16,
        },
        mm_tokens_per_image=16,
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
    )
    return _save(folder, transformers.Gemma3ForConditionalGeneration, config, processor)


ARCHITECTURES = {
    "llava": write_llava,
    "llava_next": write_llava_next,
    "idefics3": write_idefics3,
    "qwen2_vl": write_qwen2vl,
    "qwen2_5_vl": write_qwen25vl,
    "qwen3_vl": write_qwen3vl,
    "gemma3": write_gemma3,
    "paligemma": write_paligemma,
    "internvl": write_internvl,
}


def _vision(image_size: int) -> dict:
    """The configuration of a vision tower of two layers."""
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": image_size,
        "patch_size": 8,
    }


def _text(tokenizer) -> dict:
    """The configuration of a language model of two layers."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _save_parts(folder: Path, architecture: type, config, tokenizer, pictures) -> Path:
    """Write the files of the processor's parts alone, as on a hub: making it whole needs torchvision."""
    _save(folder, architecture, config, tokenizer)
    pictures.save_pretrained(folder)
    return folder


def _save(folder: Path, architecture: type, config, processor) -> Path:
    """Write a network with random weights, and its processor."""
    torch.manual_seed(0)
    network = architecture(config)
    for weight in network.parameters():
        if weight.dim() > 1 and not weight.any():  # Gemma's projector is all zeros before it is trained
            torch.nn.init.normal_(weight, std=0.02)
    tokenizer = getattr(processor, "tokenizer", processor)
    network.generation_config.update(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=12
    )
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
