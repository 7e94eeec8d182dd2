"""Tiny random checkpoints of other true architectures, written to disk with their own processors, as on a hub."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from workbench.data import miniguard
from workbench.data.splits import miniguard_split

# The parts of a message, then how each architecture frames messages and writes a picture. Where a line names a file,
# the template is like that one; trl ships the others as they are on the hub (trl/chat_templates).
PARTS = (
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}PICTURE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
)
LLAVA_TEMPLATE = (  # of llava-hf/llava-1.5-7b-hf: a system prompt stands there without its role
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'] | upper }}: {% endif %}"
    + PARTS.replace("PICTURE", "<image>\n")
    + " {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
CHATML = (  # llava-onevision-qwen2-7b-ov-hf, InternVL3-1B-hf: their conversion scripts in transformers
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    + PARTS
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL_TEMPLATE = (  # Mistral-Small-3.1: tests/models/mistral3/test_processing_mistral3.py, without its dated preamble
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST]"
    + PARTS.replace("PICTURE", "[IMG]")
    + "[/INST]{% elif message['role'] == 'system' %}[SYSTEM_PROMPT]"
    + PARTS
    + "[/SYSTEM_PROMPT]{% else %}"
    + PARTS
    + "{{ eos_token }}{% endif %}{% endfor %}"
)


def hub_template(name: str) -> str:
    """A chat template as it is on the hub, from trl."""
    folder = importlib.util.find_spec("trl").submodule_search_locations[0]
    return (Path(folder) / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def bpe_tokenizer(special: list[str], adds_bos: bool = False, **names) -> transformers.PreTrainedTokenizerFast:
    """A small byte-level BPE tokenizer, trained on MiniGuard's own text: a word after a space has other tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, special, pre_tokenizers.ByteLevel.alphabet(), adds_bos, names)


def spm_tokenizer(special: list[str], prefix: str, adds_bos: bool, **names) -> transformers.PreTrainedTokenizerFast:
    """A small tokenizer like SentencePiece's. prefix: "always" puts a space before each text, "never" does not."""
    tokenizer = Tokenizer(models.BPE(unk_token=names["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prefix)
    return _trained(tokenizer, special, [*map(chr, range(33, 127)), "▁", "\n"], adds_bos, names)


def _trained(tokenizer: Tokenizer, special, alphabet, adds_bos: bool, names) -> transformers.PreTrainedTokenizerFast:
    examples = miniguard_split("train", 0, sizes=(150, 150))
    texts = [text for e in examples for text in (e.query, e.response, e.leak)] + [miniguard.REFUSAL]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet)
    )
    if adds_bos:
        bos = names["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _llava_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Of Llama 2: <s> comes from the tokenizer, and a space before each text."""
    special = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    images = {"additional_special_tokens": special[4:], "extra_special_tokens": {"image_token": "<image>"}}
    return spm_tokenizer(special, "always", adds_bos=True, **names, **images)


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
    template = hub_template("llava_next")
    processor = transformers.LlavaNextProcessor(pictures, tokenizer, chat_template=template, **_LLAVA_PROCESSOR)
    config = transformers.LlavaNextConfig(image_grid_pinpoints=grid, **_llava_config(tokenizer))
    return _save(folder, transformers.LlavaNextForConditionalGeneration, config, processor)


_GRID = [f"<row_{i}_col_{j}>" for i in range(1, 4) for j in range(1, 4)]
_IDEFICS_TOKENS = ["<image>", "<fake_token_around_image>", "<global-img>", *_GRID]
_IDEFICS_EXTRA = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}
_TILES = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}, "do_image_splitting": True}


def _idefics_config(tokenizer) -> dict:
    return {
        "vision_config": _vision(32),
        "text_config": {"model_type": "llama", **_text(tokenizer)},
        "scale_factor": 2,
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "pad_token_id": tokenizer.pad_token_id,
    }


def write_idefics3(folder: Path) -> Path:
    """Idefics3: pictures in tiles, their tokens merged by pixel shuffle, Llama 3's text.

    The first token is written by the template and added by the tokenizer; the end of a turn is not the tokenizer's end
    of sequence.
    """
    special = ["<pad>", "<unk>", "<|begin_of_text|>", "<|end_of_text|>", "<end_of_utterance>", *_IDEFICS_TOKENS]
    tokenizer = bpe_tokenizer(
        special,
        adds_bos=True,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        additional_special_tokens=special[4:],
        extra_special_tokens=_IDEFICS_EXTRA,
    )
    pictures, template = transformers.Idefics3ImageProcessorPil(**_TILES), hub_template("idefics3")
    processor = transformers.Idefics3Processor(pictures, tokenizer, image_seq_len=4, chat_template=template)
    config = transformers.Idefics3Config(**_idefics_config(tokenizer))
    ends = ["<|end_of_text|>", "<end_of_utterance>"]
    return _save(folder, transformers.Idefics3ForConditionalGeneration, config, processor, ends)


def write_smolvlm(folder: Path) -> Path:
    """SmolVLM2: like Idefics3, with a part for videos; the template alone writes the first token."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>", *_IDEFICS_TOKENS]
    tokenizer = bpe_tokenizer(
        special,
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        additional_special_tokens=special[4:],
        extra_special_tokens=_IDEFICS_EXTRA,
        chat_template=hub_template("smolvlm"),
    )
    config = transformers.SmolVLMConfig(**_idefics_config(tokenizer))
    pictures = transformers.SmolVLMImageProcessorPil(**_TILES)
    _save_parts(folder, transformers.SmolVLMForConditionalGeneration, config, tokenizer, pictures)
    (folder / "processor_config.json").write_text('{"image_seq_len": 4, "processor_class": "SmolVLMProcessor"}')
    return folder


def write_llava_onevision(folder: Path) -> Path:
    """LLaVA-OneVision: a picture whole and in tiles, Qwen2's text; a processor with a part for videos."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    tokenizer = bpe_tokenizer(
        special,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=special[1:],
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>"},
        chat_template=CHATML.replace("PICTURE", "<image>\n"),
    )
    grid = [[32, 32], [32, 64], [64, 32]]
    pictures = transformers.LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=grid)
    config = transformers.LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **_vision(32)},
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
    )
    _save_parts(folder, transformers.LlavaOnevisionForConditionalGeneration, config, tokenizer, pictures)
    settings = {
        "processor_class": "LlavaOnevisionProcessor",
        "num_image_tokens": 16,
        "vision_aspect_ratio": "anyres_max_9",
    }
    settings["vision_feature_select_strategy"] = "full"
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return folder


def write_mistral3(folder: Path) -> Path:
    """Mistral Small 3.1: rows of picture tokens with breaks between them; an answer follows [/INST] without a space."""
    special = ["<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    special += ["[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
    tokenizer = bpe_tokenizer(
        special,
        adds_bos=True,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[4:],
    )
    pictures = transformers.PixtralImageProcessorPil(size={"longest_edge": 64}, patch_size=16)
    processor = transformers.PixtralProcessor(
        pictures, tokenizer, patch_size=8, spatial_merge_size=2, chat_template=MISTRAL_TEMPLATE
    )
    config = transformers.Mistral3Config(
        vision_config={"model_type": "pixtral", **_vision(64), "head_dim": 16},
        text_config={"model_type": "mistral", **_text(tokenizer), "head_dim": 16},
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
        vision_feature_layer=-1,
    )
    return _save(folder, transformers.Mistral3ForConditionalGeneration, config, processor)


def _qwen_tokenizer() -> tuple[transformers.PreTrainedTokenizerFast, dict[str, int]]:
    """The tokenizer, and the ids of its special tokens by their names in configurations."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    special += ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = bpe_tokenizer(
        special,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=special[1:],
        chat_template=hub_template("qwen2_5_vl"),
    )
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return tokenizer, dict(zip(names, tokenizer.convert_tokens_to_ids(special[3:]), strict=True))


_QWEN_ENDS = ["<|im_end|>", "<|endoftext|>"]
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
    return _save_parts(
        folder, transformers.Qwen2VLForConditionalGeneration, config, tokenizer, _qwen_pictures(), _QWEN_ENDS
    )


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
    return _save_parts(
        folder, transformers.Qwen3VLForConditionalGeneration, config, tokenizer, _qwen_pictures(), _QWEN_ENDS
    )


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
        chat_template=CHATML.replace("PICTURE", "<IMG_CONTEXT>\n"),
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
    """PaliGemma: attention is bidirectional within the prompt, and causal only in the answer; no chat template."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<image>"]
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"}
    images = {"additional_special_tokens": special[4:], "extra_special_tokens": {"image_token": "<image>"}}
    tokenizer = spm_tokenizer(special, "never", adds_bos=True, **names, **images)
    pictures = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    config = transformers.PaliGemmaConfig(
        vision_config={**_vision(32), "projection_dim": 64},
        text_config={"model_type": "gemma", **_text(tokenizer), "head_dim": 16},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=64,
        hidden_size=64,
    )
    processor = transformers.PaliGemmaProcessor(pictures, tokenizer)
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
    return _save_parts(
        folder, transformers.Qwen2_5_VLForConditionalGeneration, config, tokenizer, _qwen_pictures(), _QWEN_ENDS
    )


def write_gemma3(folder: Path) -> Path:
    """Gemma 3: picture tokens attend to one another in both directions; some layers have a sliding window.

    Template and tokenizer both write the first token; the end of a turn is not the end of sequence.
    """
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    special += ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    tokenizer = spm_tokenizer(
        special,
        "never",
        adds_bos=True,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=special[4:],
        extra_special_tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
    )
    pictures = transformers.Gemma3ImageProcessorPil(size={"height": 64, "width": 64})
    template = hub_template("gemma3")
    processor = transformers.Gemma3Processor(pictures, tokenizer, image_seq_length=16, chat_template=template)
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
    ends = ["<eos>", "<end_of_turn>"]
    return _save(folder, transformers.Gemma3ForConditionalGeneration, config, processor, ends)


ARCHITECTURES = {
    "llava": write_llava,
    "llava_next": write_llava_next,
    "llava_onevision": write_llava_onevision,
    "mistral3": write_mistral3,
    "idefics3": write_idefics3,
    "smolvlm": write_smolvlm,
    "qwen2_vl": write_qwen2vl,
    "qwen2_5_vl": write_qwen25vl,
    "qwen3_vl": write_qwen3vl,
    "gemma3": write_gemma3,
    "paligemma": write_paligemma,
    "internvl": write_internvl,
}


def architecture_params() -> list:
    """The names in ARCHITECTURES, for parametrize; Mistral's processor needs torchvision."""
    lacks = pytest.mark.skipif(not transformers.utils.is_torchvision_available(), reason="needs torchvision")
    return [pytest.param(name, marks=lacks if name == "mistral3" else ()) for name in ARCHITECTURES]


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


def _save_parts(folder: Path, architecture: type, config, tokenizer, pictures, ends=()) -> Path:
    """Write the files of the processor's parts alone, as on a hub: making it whole needs torchvision."""
    _save(folder, architecture, config, tokenizer, ends)
    pictures.save_pretrained(folder)
    return folder


def _save(folder: Path, architecture: type, config, processor, ends=()) -> Path:
    """Write a network with random weights, and its processor. ends: what its generation_config stops at."""
    torch.manual_seed(0)
    network = architecture(config)
    for weight in network.parameters():
        if weight.dim() > 1 and not weight.any():  # Gemma's projector is all zeros before it is trained
            torch.nn.init.normal_(weight, std=0.02)
    tokenizer = getattr(processor, "tokenizer", processor)
    network.generation_config.update(
        eos_token_id=tokenizer.convert_tokens_to_ids([*ends]) or tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=12,
    )
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
