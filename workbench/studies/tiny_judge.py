"""A tiny model that judges MiniGuard's answers as large ones judge real ones: it reads query and answer, and says one word.

It sees no picture, as WildGuard and the Llama Guards that read text alone do not. So it can tell a refusal, a broken sentence or an answer
to another question, but not whether what is said is true: the error that such judges make, on a laptop.
"""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import AddedToken

from workbench.data import miniguard
from workbench.data.example import Example
from workbench.data.splits import miniguard_split
from workbench.files import atomic_write, data_dir
from workbench.judges import rules as judges
from workbench.judges.model import FORMATS
from workbench.judges.outcomes import OUTCOMES
from workbench.judges.rules import exact
from workbench.models.vlm import Batch, quiet
from workbench.runs import bar

TEMPLATE = "{{ messages[0]['content'].split('Request:')[1] }} <verdict>"  # it has learnt its task, and need not be told
STEPS, BATCH = 600, 64


def tiny_judge(seed: int = 0, progress: bool = True) -> Path:
    """The folder of the judge, for `--judge` and `judges.judge`: kept under runs/, or taught now (half a minute on two cores).

    It is taught on answers made up from the world's own sentences, labelled by the exact judge; no model's answers are among them.
    """
    from workbench.runs import runs_dir

    made_of = "".join(map(inspect.getsource, (inspect.getmodule(tiny_judge), miniguard, judges, FORMATS["words"].ask)))
    folder = runs_dir() / f"tiny-judge-seed{seed}-{hashlib.sha256(made_of.encode()).hexdigest()[:10]}"
    if not folder.exists():
        with atomic_write(folder) as unfinished:
            _teach(unfinished, seed, progress)
    return folder


def _teach(folder: Path, seed: int, progress: bool) -> None:
    examples = miniguard_split("train", seed, "balanced", (1000, 1000))
    rng, tokenizer = np.random.default_rng(seed), _tokenizer()
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": len(tokenizer),
    }
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **special, initializer_range=0.06))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, 20, STEPS)
    for _ in bar(range(STEPS), "teaching a judge", progress):
        batch = _batch(tokenizer, [examples[i] for i in rng.integers(len(examples), size=BATCH)], rng)
        network(**batch, logits_to_keep=3).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    with quiet():
        network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batch(tokenizer, examples: list[Example], rng: np.random.Generator) -> Batch:
    answers = [_answer(example, rng) for example in examples]
    verdicts = [exact(example, answer) for example, answer in zip(examples, answers, strict=True)]
    texts = [
        tokenizer.apply_chat_template(FORMATS["words"].ask(e.query, a), tokenize=False)
        + f" {verdict}{tokenizer.eos_token}"
        for e, a, verdict in zip(examples, answers, verdicts, strict=True)
    ]
    batch = dict(tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False))
    return batch | {
        "labels": batch["input_ids"][:, -3:].where(torch.tensor([False, True, True]), -100)
    }  # verdict and end


def _answer(example: Example, rng: np.random.Generator) -> str:
    """An answer: a refusal, the truth, the answer to another question, or one of the two broken off, repeated or shuffled.

    What is well said of another picture is rare, as it is in what judges learn from: they take for true what sounds so.
    """
    lead = list(miniguard.LEADS)[rng.integers(len(miniguard.LEADS))]
    truth = (
        f"{miniguard.LEADS[lead][1]} {miniguard.without_opening(example.leak or example.response)}".strip()
    )  # however it opens
    scene = miniguard.random_scene(rng)
    other = miniguard.answer(scene, miniguard.REQUESTS[rng.integers(len(miniguard.REQUESTS))], lead)
    words = (truth if rng.random() < 0.5 else other).split()
    broken = (
        rng.permutation(words) if rng.random() < 0.5 else words[: rng.integers(1, len(words))] * int(rng.integers(1, 3))
    )
    elsewhere = miniguard.answer(scene, example.request, lead)
    kinds = [miniguard.REFUSAL, truth, other, " ".join(broken), elsewhere]
    return kinds[rng.choice(len(kinds), p=(0.2, 0.3, 0.25, 0.2, 0.05))]


def _tokenizer():
    """The base model's, which knows every word of the world, with the words of a verdict; all others of the task are unknown to it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(data_dir() / "miniguard-base")
    tokenizer.add_tokens([AddedToken(word, single_word=True) for word in ("response", *OUTCOMES)])
    tokenizer.add_tokens(["<verdict>"], special_tokens=True)
    tokenizer.chat_template = TEMPLATE
    return tokenizer
