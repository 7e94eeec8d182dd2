"""Attribution of one query on the 7B shape, words and 6 × 6 squares, beside Captum's own loop over some of
the same prompts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from captum.attr import FeatureAblation, LLMAttribution

from benchmarks.attribution import RIGHT, Words
from benchmarks.gpu.model import Scale, build, examples, seconds
from workbench.attribution.masking import Perturbed
from workbench.attribution.methods import attribute
from workbench.attribution.target import answer_target
from workbench.models.vlm import IGNORED, answer_batch
from workbench.training.objectives import sequence_logprobs

MASKS = 8  # prompts that Captum is asked: the whole one, and one for each word


def rows(scale: Scale) -> Iterator[dict]:
    """Ours with all features, theirs with words alone, and the ratio of seconds a prompt."""
    vlm = build(scale)
    (example,) = examples(vlm, scale, 0, 1)
    query, answer = " ".join(example.query.split()[: MASKS - 1]), " ".join(example.response.split()[:4])
    picture, target = example.picture(), answer_target(answer)
    attribute(vlm, picture, query, target)  # warms up
    vlm.features.clear()
    took, found = seconds(lambda: attribute(vlm, picture, query, target), scale.device)
    with torch.inference_mode():
        batch = answer_batch(vlm, [dataclasses.replace(example, query=query)], [answer])
        batch["labels"][:, -1] = IGNORED  # the answer's end is no part of the target
        expected = sequence_logprobs(vlm.model, batch).item()
    value = Perturbed(vlm, picture, query, target).value
    assert abs(value - expected) <= (1e-3 if scale.tiny else 0.05) * abs(expected), (value, expected)
    assert np.abs(found.patches).max() > 0 and np.abs(found.words).max() > 0
    prompts = 1 + found.words.size + found.patches.size
    yield {
        "what": "ablation of words and squares",
        "prompts": prompts,
        "seconds": took,
        "log_p": value,
        "log_p_by_the_model": expected,
    }

    f = Perturbed(vlm, picture, query, target)
    by_captum = LLMAttribution(FeatureAblation(vlm.model), vlm.processor.tokenizer)
    by_captum.attribute(Words(f), target=answer, **RIGHT["by sequence"])  # warms up
    theirs, words = seconds(
        lambda: by_captum.attribute(Words(f), target=answer, **RIGHT["by sequence"]).seq_attr, scale.device
    )
    apart = float(np.abs(words.float().cpu().numpy() - found.words).max())
    assert apart < (2e-3 if scale.tiny else 3), apart  # Captum adds up log-probabilities in the network's own bfloat16
    yield {
        "what": "Captum's LLMAttribution, words alone, in one piece",
        "prompts": MASKS,
        "seconds": theirs,
        "largest_difference": apart,
        "ratio_a_prompt": (theirs / MASKS) / (took / prompts),
    }
