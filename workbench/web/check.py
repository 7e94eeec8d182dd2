"""The exported graphs, run outside a browser: do they answer as the models do?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from workbench.data.drawing import draw
from workbench.data.miniguard import ALL_LEADS, REQUESTS, SIZE, random_query, random_scene
from workbench.errors import UserError
from workbench.models.vlm import VLM, prompt_batch, with_opening

ASKED = 24  # questions to each model before a page is written
TIE = 0.02  # nats between a model's two best tokens, below which rounding may choose the other


def graph_answers(
    vlm: VLM, eyes: Path, decoder: Path, pictures: Sequence[Image.Image], queries: Sequence[str]
) -> list[str]:
    """Greedy answers of two exported graphs, computed by onnxruntime.

    Args:
        vlm: The model that they were made from, for its tokens.
        eyes: What `graphs.write_graph` wrote of `eyes_graph`.
        decoder: What it wrote of `decoder_graph`.
        pictures: N pictures.
        queries: Query i goes with picture i.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    look, read = (
        onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]) for file in (eyes, decoder)
    )
    longest, end = vlm.generation.options(vlm.model)["max_new_tokens"], vlm.form.ending[-1]
    answers = []
    for picture, query in zip(pictures, queries, strict=True):
        ids = prompt_batch(vlm, [picture], [query])["input_ids"].tolist()  # (1, T)
        (features,) = look.run(None, {"pixels": np.asarray(picture)[None]})
        start = len(ids[0])
        while len(ids[0]) < start + longest and ids[0][-1] != end:
            logits: Any = read.run(None, {"ids": np.array(ids, dtype=np.int32), "features": features})[0]  # (1, V)
            ids[0].append(int(logits.argmax()))
        answers.append(vlm.processor.decode(ids[0][start:], skip_special_tokens=True).strip())
    return answers


def margin(vlm: VLM, picture: Image.Image, query: str, own: str, other: str) -> float:
    """How much better, in nats, a model finds its own answer's first word that another answer does not share.

    RMU's models babble, and often find two words equally good: then the order of additions decides.

    Args:
        vlm: The model.
        picture: The picture.
        query: The query.
        own: The model's greedy answer.
        other: An answer that differs.
    """
    words, others = own.split(), other.split()
    shared = next((i for i, pair in enumerate(zip(words, others, strict=False)) if pair[0] != pair[1]), None)
    shared = min(len(words), len(others)) if shared is None else shared
    batch = with_opening(vlm, prompt_batch(vlm, [picture], [query]), " ".join(words[:shared]))
    with torch.inference_mode():
        best = vlm.model(**batch).logits[0, -1].topk(2).values
    return float(best[0] - best[1])


def check_graphs(vlm: VLM, eyes: Path, decoder: Path) -> None:
    """Ask a model and its graphs some random questions.

    Raises:
        UserError: An answer clearly differs, because rounding the weights to half precision changed it.
    """
    rng = np.random.default_rng(0)
    pictures = [draw(random_scene(rng), SIZE) for _ in range(ASKED)]
    queries = [random_query(rng, str(rng.choice([*ALL_LEADS])), str(rng.choice(REQUESTS))) for _ in range(ASKED)]
    theirs = graph_answers(vlm, eyes, decoder, pictures, queries)
    for picture, query, own, exported in zip(pictures, queries, vlm.answers(pictures, queries), theirs, strict=True):
        if own != exported and margin(vlm, picture, query, own, exported) > TIE:
            raise UserError(
                f"The graph of {vlm.name} answers {query!r} with {exported!r} and the model with {own!r}: its weights "
                "cannot be rounded to half precision; leave it out."
            )
