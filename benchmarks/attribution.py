"""What attribution costs, ours beside Captum's LLMAttribution for the same values, in one run.

`python -m benchmarks.attribution [--json]`.

Ablation of every word and of 6 × 6 squares for log p of an answer, on MiniGuard's base and on a random LLaVA
of 99 million parameters. LLMAttribution asks one perturbed prompt at a time; it is run as it must be for
right values (its own default, use_cached_outputs=True, gives zeros for the picture): token by token, and
with the answer in one piece. And the log-odds of a refusal under every lead word, beside whole prompts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from captum.attr import FeatureAblation, ImageMaskInput, LLMAttribution, TextTemplateInput

from benchmarks import show
from benchmarks.llava import write_llava
from workbench.attacks.one_word import rewrites
from workbench.attribution.lead_word import lead_word_values
from workbench.attribution.masking import Perturbed
from workbench.attribution.methods import attribute
from workbench.attribution.target import Target, answer_target, opening_tokens
from workbench.data.miniguard import LEADS
from workbench.data.splits import miniguard_split
from workbench.models.load import load
from workbench.models.vlm import VLM, prompt_batch

RIGHT = {
    "token by token": {"use_cached_outputs": False},
    "by sequence": {"use_cached_outputs": False, "forward_in_tokens": False},
}


class Words(TextTemplateInput):
    """The words of a query, asked about a picture: Captum's own input for words knows no pictures."""

    def __init__(self, f: Perturbed):
        blank = f.vlm.processor.tokenizer.unk_token
        tokens = [int((f.word_of == w).sum()) for w in range(len(f.words))]
        super().__init__(lambda *words: " ".join(words), values=f.words, baselines=[blank * n for n in tokens])
        self.perturbed = f

    def to_model_input(self, perturbed_tensor=None):
        f, there = self.perturbed, torch.ones(len(self.values)) if perturbed_tensor is None else perturbed_tensor[0]
        batch = prompt_batch(f.vlm, [f.image], [f.query])
        unknown = f.vlm.processor.tokenizer.unk_token_id
        gone = (f.word_of >= 0) & (there.cpu()[f.word_of.clamp(min=0)] == 0)
        return batch | {"input_ids": batch["input_ids"].masked_fill(gone.to(f.vlm.device), unknown)}


def one_by_one(f: Perturbed, **options) -> tuple[np.ndarray, np.ndarray]:
    """Words (W,) and squares (rows, columns) by Captum's LLMAttribution. options: of its `attribute`."""
    llm = LLMAttribution(FeatureAblation(f.vlm.model), f.vlm.processor.tokenizer)
    mean = tuple(int(v) for v in f.pixels.reshape(-1, 3).mean(axis=0).round())
    squares = ImageMaskInput(
        f.image,
        mask=torch.tensor(f.square_of, dtype=torch.int32),
        baseline=mean,
        processor_fn=lambda picture: prompt_batch(f.vlm, [picture], [f.query]),
    )
    (answer,) = f.target.openings
    words, patches = (llm.attribute(inp, target=answer, **options).seq_attr.numpy() for inp in (Words(f), squares))
    return words, patches.reshape(f.grid, f.grid)


def compare(name: str, vlm: VLM, rounds: int = 5) -> list[dict]:
    """The ratios on one model.

    [{"what", "ours", "other", "ratio"}]; seconds, medians over `rounds`, in which each side has its turn.
    """
    example = next(
        e for e in miniguard_split("validation", seed=1, sizes=(12, 12)) if not e.harmful and e.request == "name"
    )
    picture, query, target = example.picture(), example.query, answer_target(example.response)
    taken: dict[str, list[float]] = {"ours": [], "ours, the picture seen before": [], **{side: [] for side in RIGHT}}
    for _ in range(rounds):
        vlm.features.clear()
        for side in taken:
            started = time.perf_counter()
            if side in RIGHT:
                words, patches = one_by_one(Perturbed(vlm, picture, query, target), **RIGHT[side])
            else:
                found = attribute(vlm, picture, query, target)
            taken[side].append(time.perf_counter() - started)
            if side in RIGHT:
                np.testing.assert_allclose(words, found.words, atol=2e-3)
                np.testing.assert_allclose(patches, found.patches, atol=2e-3)
    seconds = {side: statistics.median(values) for side, values in taken.items()}
    others = [(side, "ours") for side in RIGHT] + [("ours", "ours, the picture seen before")]
    return [
        {
            "what": f"{name}: {other} / {mine}",
            "ours": seconds[mine],
            "other": seconds[other],
            "ratio": seconds[other] / seconds[mine],
        }
        for other, mine in others
    ]


def search_words(name: str, vlm: VLM, rounds: int = 3) -> list[dict]:
    """The same ratios for `lead_word_values`: eleven lead words and none, of eight queries.

    The other side is what one would write with transformers: the logits after whole prompts, one by one or
    in batches.
    """
    examples, words, target = miniguard_split("validation", seed=1, sizes=(4, 4)), ["none", *LEADS], Target(("sorry",))
    asked = [(e.picture(), rewrites(e.query, word)[0]) for word in words for e in examples]
    ((token,),) = opening_tokens(vlm, target.openings)

    @torch.no_grad()
    def plain(size: int) -> list[float]:
        values = []
        for start in range(0, len(asked), size):
            batch = prompt_batch(vlm, *zip(*asked[start : start + size], strict=True))
            values += vlm.model(**batch, logits_to_keep=1).logits[:, -1].double().log_softmax(-1)[:, token].tolist()
        return values

    taken: dict[str, list[float]] = {"ours": [], "one by one": [], "in batches": []}
    for _ in range(rounds):
        for side, seconds in taken.items():
            started = time.perf_counter()
            if side == "ours":
                by_word = lead_word_values(vlm, examples, words, target, progress=False)
                found = [value for values in by_word.values() for value in values]
            else:
                plainly = plain(1 if side == "one by one" else 16)
                np.testing.assert_allclose(found, target.of(torch.tensor([plainly])), atol=2e-3)
            seconds.append(time.perf_counter() - started)
    seconds = {side: statistics.median(values) for side, values in taken.items()}
    ours = seconds.pop("ours")
    return [
        {"what": f"{name}, words: {side} / ours", "ours": ours, "other": other, "ratio": other / ours}
        for side, other in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = {
            "MiniGuard": load("miniguard", device="cpu"),
            "LLaVA, 99 M": load(write_llava(Path(folder) / "llava"), device="cpu"),
        }
        found = [row for name, vlm in models.items() for row in [*compare(name, vlm), *search_words(name, vlm)]]
    show(found, given.json)


if __name__ == "__main__":
    main()
