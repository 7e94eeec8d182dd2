"""Answers a second of the 7B shape: one by one, in batches, and with the pictures' features kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils._pytree import tree_leaves

from benchmarks.gpu.model import Scale, build, examples, seconds
from workbench.evaluation.ask import ask
from workbench.models.features import cached_features
from workbench.models.vlm import VLM, bare, generate, prompt_batch


def rows(scale: Scale) -> Iterator[dict]:
    """A row for each way to ask, and one for how near the memory's bandwidth the writing of words comes."""
    vlm = build(scale)
    vlm.model.generation_config.max_new_tokens = scale.new_tokens
    data = examples(vlm, scale, 0, scale.queries)
    images, queries = [e.picture() for e in data], [e.query for e in data]
    vlm.answers(
        images, queries, batch_size=scale.queries
    )  # warms up, as does the next line: kernels are chosen by shape
    vlm.answer(images[0], queries[0])

    few = max(2, scale.queries // 8)
    vlm.features.clear()
    alone, one_by_one = seconds(
        lambda: [vlm.answer(i, q) for i, q in zip(images[:few], queries[:few], strict=True)], scale.device
    )
    yield {"what": "one by one", "queries": few, "answers_a_second": few / alone}

    vlm.features.clear()
    batched, answers = seconds(lambda: vlm.answers(images, queries, batch_size=scale.queries), scale.device)
    assert len(set(answers)) > len(answers) / 2, (
        answers
    )  # they depend on query and picture, so that equality says something
    equal = first_words_equal(scale, one_by_one, answers[:few])
    yield {
        "what": "in a batch",
        "queries": scale.queries,
        "answers_a_second": scale.queries / batched,
        "ratio_to_one_by_one": (scale.queries / batched) / (few / alone),
        "first_words_equal": equal,
    }

    looked = leaves(vlm)
    kept, again = seconds(lambda: vlm.answers(images, queries, batch_size=scale.queries), scale.device)
    table = ask(vlm, data, ["none"], batch_size=scale.queries, progress=False)
    vlm.features.clear()
    repeated = vlm.answers(images, queries, batch_size=scale.queries)
    for before, now in zip(looked, leaves(vlm), strict=True):
        assert (now - before).norm() <= 0.01 * before.norm(), "pictures looked at again look different"
    yield {
        "what": "in a batch, the pictures seen before",
        "queries": scale.queries,
        "answers_a_second": scale.queries / kept,
        "ratio_to_one_by_one": (scale.queries / kept) / (few / alone),
        "first_words_equal": first_words_equal(scale, again, answers),
        "first_words_equal_by_evaluate": first_words_equal(scale, table.answer.tolist(), answers),
        "whole_answers_equal": share_equal(again, answers),
        "whole_answers_equal_repeated_without_kept_features": share_equal(repeated, answers),
    }

    batch = prompt_batch(vlm, images, queries)
    with cached_features(bare(vlm.model), batch, images, vlm.features):
        first, _ = seconds(lambda: generate(vlm, batch, max_new_tokens=1), scale.device)
        whole, _ = seconds(lambda: generate(vlm, batch, max_new_tokens=scale.new_tokens), scale.device)
    a_word = (whole - first) / (scale.new_tokens - 1)
    weights = sum(
        p.nbytes
        for part in (vlm.model.get_decoder().layers, vlm.model.get_output_embeddings())
        for p in part.parameters()
    )
    limit = bandwidth(scale.device)
    yield {
        "what": "writing one word",
        "queries": scale.queries,
        "milliseconds": 1000 * a_word,
        "bandwidth_gb_a_second": limit / 1e9,
        "share_of_the_bandwidth_limit": weights / limit / a_word,  # the weights are read once a word
    }


def leaves(vlm: VLM) -> list[torch.Tensor]:
    """All tensors of the kept features."""
    return [part for kept in vlm.features.values() for part in tree_leaves(vars(kept)) if torch.is_tensor(part)]


def share_equal(answers: Sequence[object], expected: Sequence[object]) -> float:
    return sum(a == b for a, b in zip(answers, expected, strict=True)) / len(expected)


def first_words_equal(scale: Scale, answers: Sequence[str], expected: Sequence[str]) -> float:
    """The share of answers with the expected first word.

    With random weights many words are almost equally likely, and a GPU's 16-bit sums differ a little from
    one way of asking to another: later words go their own way. On the CPU whole answers must be equal.
    """
    if scale.tiny:
        assert list(answers) == list(expected), "answers differ"
    equal = share_equal([a.split()[:1] for a in answers], [e.split()[:1] for e in expected])
    assert equal >= 0.5, f"{equal:.2f} of first words are equal"
    return equal


def bandwidth(device: str) -> float:
    """Bytes a second that the device's memory moves, reading and writing counted, copying 1 GiB (16 MiB on
    the CPU): the best of five.
    """
    source = torch.ones(2**28 if device == "cuda" else 2**22, device=device)
    target = torch.empty_like(source)
    return max(2 * source.nbytes / seconds(lambda: target.copy_(source), device)[0] for _ in range(5))
