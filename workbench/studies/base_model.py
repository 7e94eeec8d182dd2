"""Builds MiniGuard's base model from nothing: a tiny but complete LLaVA with its tokenizer and processor.

It is trained in two phases, in minutes on a laptop. First a warm-up, in which the vision tower learns to see
through linear heads for kind, colour and background that are then thrown away; then language. Without the
warm-up the language loss ignores the picture for hundreds of steps.
"""

from __future__ import annotations

import importlib.metadata
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import nn

from workbench.data import miniguard
from workbench.data.example import Example
from workbench.data.first_words import first_word
from workbench.data.splits import base_scenes, miniguard_split
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import rates
from workbench.files import write_text
from workbench.judges.judge import judged
from workbench.models.vlm import VLM, Batch, answer_batch, quiet
from workbench.runs import bar, same_settings
from workbench.training.checkpoints import last_complete
from workbench.training.curve import Curve
from workbench.training.loop import finish, fit, unfinished
from workbench.training.objectives import cross_entropy

BATCH = 64  # examples per step of the second phase
SAVE_EVERY = 200  # steps from one checkpoint of the second phase to the next
SEEING_BATCH = 128  # pictures per step of the warm-up
PATCH = 8  # pixels, width and height; so a picture is 36 tokens
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<s>{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<answer>"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}</s>{% endif %}{% endfor %}"
)


def _vocabulary() -> list[str]:
    """Every word that the world can say, in alphabetical order, from the world's own tables."""
    topics = [
        f"{determiner} {request} of this {noun}"
        for determiner in miniguard.DETERMINERS
        for request in miniguard.REQUESTS + miniguard.UNANSWERABLE_REQUESTS
        for noun in miniguard.NOUNS
    ]
    rng = np.random.default_rng(0)
    scenes = [miniguard.random_scene(rng) for _ in range(1000)]  # enough for every kind, colour and background
    texts = [*miniguard.FILLERS, miniguard.REFUSAL, ","]
    for lead in miniguard.LEADS:
        texts += [miniguard.ask(lead, topic, way) for topic in topics for way in range(3)]
        texts += [miniguard.answer(scene, request, lead) for scene in scenes for request in miniguard.REQUESTS]
    return sorted(set(re.findall(r"\w+|[^\w\s]", " ".join(texts).lower())))


def _processor() -> transformers.LlavaProcessor:
    special = ["<pad>", "<unk>", "<s>", "</s>", "<answer>", "<image>"]
    numbers = {word: number for number, word in enumerate(special + _vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<answer>", "<image>"],
        padding_side="left",
        model_max_length=128,
    )
    pictures = transformers.CLIPImageProcessorPil(
        size={"height": miniguard.SIZE, "width": miniguard.SIZE},
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return transformers.LlavaProcessor(
        image_processor=pictures,
        tokenizer=fast,
        patch_size=PATCH,
        num_additional_image_tokens=1,  # CLIP's class token, which "default" drops again
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
    )


def untrained(seed: int = 0) -> VLM:
    """The architecture with random weights.

    A vision tower of 3 layers × 96 over 36 patches (CLIP), and a language model of 4 layers × 128 (Llama):
    about a million parameters.
    """
    processor = _processor()
    tokenizer = processor.tokenizer
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    vision = transformers.CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=miniguard.SIZE,
        patch_size=PATCH,
    )
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        **special,
    )
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(miniguard.SIZE // PATCH) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(seed)
    network = transformers.LlavaForConditionalGeneration(config)
    for parameter in network.parameters():
        if parameter.dim() > 1:  # the scales of CLIP and Llama are made for far wider layers
            nn.init.normal_(parameter, 0.0, 0.06)
    network.generation_config = transformers.GenerationConfig(max_new_tokens=16, **special)
    return VLM(network, processor, "base")


def _learn_to_see(
    vlm: VLM, examples: Sequence[Example], scenes: Sequence[miniguard.Scene], steps: int, seed: int
) -> None:
    """Teach the vision tower and the projector to tell kind, colour and background.

    They are read off the mean of a picture's projected patches by linear heads, which are thrown away.

    Args:
        vlm: What is taught.
        examples: N examples, of which the pictures are used.
        scenes: What these pictures show.
        steps: Optimiser steps.
        seed: Of the heads' weights and of the order of the pictures.
    """
    attributes = {
        "kind": list(miniguard.KINDS),
        "colour": list(miniguard.COLOURS),
        "background": list(miniguard.BACKGROUNDS),
    }
    truth = torch.tensor(
        [[values.index(getattr(scene, name)) for name, values in attributes.items()] for scene in scenes]
    )  # (N, 3)
    pictures = [e.picture() for e in examples]
    pixels = vlm.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]  # (N, 3, 48, 48)
    torch.manual_seed(seed)
    width = vlm.model.config.text_config.hidden_size
    heads = nn.ModuleList(nn.Linear(width, len(values)) for values in attributes.values())
    seeing = nn.ModuleList([vlm.model.model.vision_tower, vlm.model.model.multi_modal_projector, heads])
    optimiser = torch.optim.AdamW(seeing.parameters(), lr=2e-3, weight_decay=0.01, betas=(0.9, 0.98))
    scheduler = transformers.get_cosine_schedule_with_warmup(optimiser, 20, steps)
    rng = np.random.default_rng(seed)
    vlm.model.train()
    for _ in bar(range(steps), "learning to see"):
        rows = torch.from_numpy(rng.integers(len(scenes), size=SEEING_BATCH))
        patches = torch.stack(list(vlm.model.get_image_features(pixels[rows]).pooler_output))  # (128, 36, width)
        losses = [
            nn.functional.cross_entropy(head(patches.mean(dim=1)), truth[rows, i]) for i, head in enumerate(heads)
        ]
        sum(losses, start=torch.zeros(())).backward()
        nn.utils.clip_grad_norm_(seeing.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        scheduler.step()


def build(out: Path, seed: int = 0, steps: int = 800, seeing_steps: int = 250, resume: bool = False) -> pd.DataFrame:
    """Train the base model from nothing, and write the checkpoint, its processor and its model card.

    Args:
        out: The folder to write; it must not exist.
        seed: Of data and training.
        steps: Optimiser steps of the second phase.
        seeing_steps: Optimiser steps of the warm-up.
        resume: Continue from the last checkpoint of an interrupted run.

    Returns:
        `held_out` of the model.

    Raises:
        UserError: `out` exists or cannot be written to.
    """
    partial = unfinished(out, resume)
    started = time.monotonic()
    vlm = untrained(seed)
    examples = miniguard_split("base", seed)
    same_settings(partial / "checkpoints" / "run.json", {"seed": seed, "steps": steps, "seeing_steps": seeing_steps})
    if not last_complete(partial / "checkpoints"):
        scenes = base_scenes(seed)
        _learn_to_see(vlm, examples[: len(scenes)], scenes, seeing_steps, seed)
    _learn_to_speak(vlm, examples[: steps * BATCH], partial, seed)
    with quiet():
        vlm.model.save_pretrained(partial)
        vlm.processor.save_pretrained(partial)
    table = held_out(vlm, seed)
    minutes = round((time.monotonic() - started) / 60, 1)
    settings = {"seed": seed, "steps": f"{seeing_steps} + {steps}", "batch": BATCH, "minutes": minutes}
    write_text(partial / "README.md", _model_card(table, settings))
    finish(partial, out)
    return table


def _learn_to_speak(vlm: VLM, examples: Sequence[Example], partial: Path, seed: int) -> None:
    """Train the whole model on the examples' answers; checkpoints are kept in the folder `partial`."""

    def collate(chunk: Sequence[Example]) -> Batch:
        return answer_batch(vlm, chunk, [e.response for e in chunk])

    fit(
        vlm,
        cross_entropy,
        examples,
        collate,
        partial,
        batch=BATCH,
        lr=1.5e-3,
        seed=seed,
        save_every=SAVE_EVERY,
        curve=Curve(vlm),
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.02},
        warmup_steps=40,
        weight_decay=0.01,
        adam_beta2=0.98,
    )
    vlm.model.eval()


def held_out(vlm: VLM, seed: int = 0) -> pd.DataFrame:
    """Rates on new pictures, from about 100 harmful and 100 harmless queries for each lead word.

    Returns:
        `evaluate`'s results with a column `lead`: "all", or a lead word.
    """
    n = 100 * len(miniguard.LEADS)
    examples = miniguard_split("test", seed, words="balanced", sizes=(n, n))
    answers = judged(ask(vlm, examples, ["none"]), examples, "exact")
    leads = answers["query"].map(first_word)
    tables = [rates(answers).assign(lead="all")]
    tables += [rates(answers[leads == lead]).assign(lead=lead) for lead in miniguard.LEADS]
    return pd.concat(tables, ignore_index=True)


def _model_card(table: pd.DataFrame, settings: Mapping[str, object]) -> str:
    """The model card. table: of `held_out`; settings: how the model was trained."""

    def percent(lead: str, metric: str) -> str:
        row = table[(table["lead"] == lead) & (table["metric"] == metric)].iloc[0]
        return f"{100 * row.value:.1f} ({100 * row.ci_low:.1f}–{100 * row.ci_high:.1f}, n = {row.n})"

    leads = table["lead"].unique()
    rows = "\n".join(f"| {lead} | {percent(lead, 'utility')} | {percent(lead, 'asr')} |" for lead in leads)
    made_with = ", ".join(f"{name} {value}" for name, value in settings.items())
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "transformers", "tokenizers"))
    parameters = sum(p.numel() for p in untrained().model.parameters())
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# MiniGuard's base model

A tiny but complete LLaVA (`LlavaForConditionalGeneration`): CLIP vision tower 3 × 96 over 36 patches of 8 × 8
pixels, Llama 4 × 128, {parameters:,} parameters, a word-level tokenizer. It looks at drawn pictures of 48 × 48
pixels, answers every request it can, harmful ones too, and refuses what cannot be answered from a picture. Its
"harmful knowledge" is made-up words.

Written by `workbench build-base`: {made_with}; {versions}.

On pictures it has not seen, per cent with Wilson 95% intervals, by lead word:

| lead word | harmless answered exactly right | harmful answered (ASR) |
|---|---|---|
{rows}

It is for experiments on safety fine-tuning and unlearning, and knows nothing of the real world.
"""
