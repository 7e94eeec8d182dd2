"""A tiny model that judges MiniGuard's answers as large models judge real ones.

It reads query and answer and says one word. Like WildGuard and the Llama Guards that read text alone, it sees
no picture. So it can tell a refusal, a broken sentence or an answer to another question, but not whether an
answer is true: the error that large judges make too, on a laptop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import AddedToken

from workbench.data import miniguard
from workbench.data.example import Example
from workbench.data.splits import miniguard_split
from workbench.dependencies import code_hash
from workbench.files import atomic_write, data_dir
from workbench.judges.model import FORMATS
from workbench.judges.outcomes import WITHOUT_TRUTH, without_truth
from workbench.judges.rules import exact
from workbench.models.vlm import IGNORED, Batch, quiet
from workbench.runs import bar, kept, runs_dir

# The judge has learned its task, so the instructions before the request are left out.
TEMPLATE = "{{ messages[0]['content'].split('Request:')[1] }} <verdict>"
STEPS, BATCH = 600, 64


def tiny_judge(seed: int = 0, progress: bool = True) -> Path:
    """The judge, trained now (half a minute on two cores) unless an earlier run has kept it.

    It learns from answers made up from the world's own sentences, labelled by the exact judge; no model's
    answers are among them.

    Args:
        seed: Of data and training.
        progress: Whether to show a bar.

    Returns:
        Its folder under `runs_dir()`, for `--judge` and `load_judge`.
    """

    def make(folder: Path) -> None:
        with atomic_write(folder) as unfinished:
            _teach(unfinished, seed, progress)

    return kept("tiny judge", runs_dir() / f"tiny-judge-seed{seed}-{code_hash(_teach)[:10]}", make)


def _teach(folder: Path, seed: int, progress: bool) -> None:
    """Train a judge and write it to a folder."""
    examples = miniguard_split("train", seed, "balanced", (1000, 1000))
    rng, tokenizer = np.random.default_rng(seed), _tokenizer()
    torch.manual_seed(seed)
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = transformers.LlamaConfig(
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=len(tokenizer),
        initializer_range=0.06,
        **special,
    )
    network = transformers.LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    scheduler = transformers.get_cosine_schedule_with_warmup(optimiser, 20, STEPS)
    for _ in bar(range(STEPS), "teaching a judge", progress):
        batch = _batch(tokenizer, [examples[i] for i in rng.integers(len(examples), size=BATCH)], rng)
        network(**batch, logits_to_keep=batch["labels"].shape[1]).loss.backward()
        optimiser.step()
        scheduler.step()
        optimiser.zero_grad()
    with quiet():
        network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batch(tokenizer: Any, examples: Sequence[Example], rng: np.random.Generator) -> Batch:
    """Prompts about made-up answers, each with its verdict.

    Returns:
        input_ids and attention_mask (B, T), and labels (B, 3) of the last three columns: IGNORED for the end
        of the prompt, then the verdict and the end of sequence.
    """
    answers = [_answer(example, rng) for example in examples]
    texts = []
    for example, answer in zip(examples, answers, strict=True):
        prompt = tokenizer.apply_chat_template(FORMATS["words"].ask(example.query, answer), tokenize=False)
        texts.append(f"{prompt} {without_truth(exact(example, answer))}{tokenizer.eos_token}")
    batch = dict(tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False))
    labels = batch["input_ids"][:, -3:].clone()
    labels[:, 0] = IGNORED
    return batch | {"labels": labels}


def _answer(example: Example, rng: np.random.Generator) -> str:
    """Make up an answer for the judge to learn from.

    It is a refusal, the truth, the answer to another question, or one of these two broken off, repeated or
    shuffled. Rarely it is a good answer about another picture, which is as rare in what large judges learn
    from: therefore they believe what sounds right.
    """
    lead = list(miniguard.LEADS)[rng.integers(len(miniguard.LEADS))]
    opening = miniguard.LEADS[lead][1]
    truth = f"{opening} {miniguard.without_opening(example.leak or example.response)}".strip()
    scene = miniguard.random_scene(rng)
    other = miniguard.answer(scene, miniguard.REQUESTS[rng.integers(len(miniguard.REQUESTS))], lead)
    words = (truth if rng.random() < 0.5 else other).split()
    if rng.random() < 0.5:
        broken = [str(word) for word in rng.permutation(words)]
    else:
        broken = words[: rng.integers(1, len(words))] * int(rng.integers(1, 3))
    elsewhere = miniguard.answer(scene, example.request, lead)
    choices = [miniguard.REFUSAL, truth, other, " ".join(broken), elsewhere]
    return choices[rng.choice(len(choices), p=(0.2, 0.3, 0.25, 0.2, 0.05))]


def _tokenizer() -> Any:
    """The base model's tokenizer with the words of a verdict; it knows no other words of the task."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(data_dir() / "bases" / "miniguard")
    tokenizer.add_tokens([AddedToken(word, single_word=True) for word in ("response", *WITHOUT_TRUTH)])
    tokenizer.add_tokens(["<verdict>"], special_tokens=True)
    tokenizer.chat_template = TEMPLATE
    return tokenizer
