"""Several queries about one picture in one row, so that what stands before them is read and trained once.

A row holds the prompt as far as the picture, and then each query with its answer. An answer sees what stands
before its own query and its query, not the others; positions count on from the picture for each. Shapes: P =
pictures, K = queries about each, A = answer columns of a query, T = columns of a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from workbench.data.example import Example
from workbench.models.vlm import IGNORED, VLM, Batch, answer_batch, bare
from workbench.training.objectives import cross_entropy

READ = {"input_ids", "attention_mask", "pixel_values"}  # by models whose positions and masks can be given; more
# (token types, grids of patches) belongs to those that make their own
CLOSE = 1e-4  # relative difference up to which two losses in float32 are the same
ROUNDED = 0.02  # the same in 16 bits


def about_one_picture(examples: Sequence[Example], size: int) -> list[Example]:
    """Reorder examples so that `size` about a picture follow one another; what is left over is left out."""
    by_picture: dict[int, list[Example]] = {}
    for example in examples:
        by_picture.setdefault(id(example.image), []).append(example)
    chunks = [
        [own[start : start + size] for start in range(0, len(own) - size + 1, size)] for own in by_picture.values()
    ]
    rounds = itertools.zip_longest(*chunks, fillvalue=[])  # all pictures once, then all of them again
    return [example for round_ in rounds for chunk in round_ for example in chunk]


def packed(vlm: VLM, examples: Sequence[Example], size: int) -> Batch:
    """Examples with their responses, K = `size` about each picture in one row.

    Args:
        vlm: The model that is to read them.
        examples: As `about_one_picture` orders them.
        size: How many about each picture.

    Returns:
        input_ids and position_ids (P, T), attention_mask (P, 1, T, T), the pictures; columns (K·A,), from
        which answers are predicted; and targets (P, K, A), which are IGNORED where no answer token stands.
    """
    batch = answer_batch(vlm, examples, [e.response for e in examples])
    image = bare(vlm.model).config.image_token_id
    ids, mask, labels = (batch[name].cpu() for name in ("input_ids", "attention_mask", "labels"))
    rows = [_parts(*row, image) for row in zip(ids, mask, labels, strict=True)]
    start = len(rows[0][0])  # tokens as far as the picture, the same in all rows
    query, answer = (max(len(row[part]) for row in rows) for part in (1, 2))
    pad = vlm.tokenizer.pad_token_id
    packed_ids, real, targets = [], [], []
    for _, asked, answered in rows:
        before, after = query - len(asked), answer - len(answered)
        packed_ids.append(F.pad(torch.cat([asked, answered]), (before, after), value=pad))
        real.append(F.pad(torch.ones(len(asked) + len(answered), dtype=torch.bool), (before, after), value=False))
        targets.append(F.pad(answered, (0, after), value=IGNORED))
    count, width = len(rows) // size, query + answer
    prefix = torch.stack([rows[place][0] for place in range(0, len(rows), size)])  # (P, start)
    own_ids, own_real = (torch.stack(each).reshape(count, size * width) for each in (packed_ids, real))
    within = own_real.reshape(count, size, width).long().cumsum(-1).reshape(count, -1) - 1
    positions = torch.cat([torch.arange(start).expand(count, -1), start + within.clamp(min=0)], dim=1)
    firsts = start + width * torch.arange(size) + query - 1  # the column before each answer
    inputs = {name: tensor[::size] for name, tensor in batch.items() if tensor.shape[:2] != batch["labels"].shape}
    made = {
        "input_ids": torch.cat([prefix, own_ids], dim=1),
        "position_ids": positions,
        "attention_mask": _visible(start, own_real, size),
        "columns": (firsts[:, None] + torch.arange(answer)).flatten(),
        "targets": torch.stack(targets).reshape(count, size, answer),
    }
    return inputs | {name: tensor.to(vlm.device) for name, tensor in made.items()}


def _parts(
    ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor, image: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The tokens of a row (T,) as far as the picture, of the query, and of the answer."""
    tokens, answers = ids[mask.bool()], labels[mask.bool()] != IGNORED
    last = int((tokens == image).nonzero()[-1]) + 1
    first = int(answers.nonzero()[0])
    return tokens[:last], tokens[last:first], tokens[first:]


def _visible(start: int, real: torch.Tensor, size: int) -> torch.Tensor:
    """Which columns each column sees (P, 1, T, T): the beginning, and what came before of the same query.

    Args:
        start: Columns of the beginning.
        real: Which of the queries' columns are no padding, (P, T − start).
        size: Queries in a row.
    """
    width = real.shape[1] // size
    query_of = torch.cat([torch.full((start,), -1), torch.arange(size).repeat_interleave(width)])
    same = (query_of[:, None] == query_of) | (query_of == -1)
    causal = torch.ones(len(query_of), len(query_of), dtype=torch.bool).tril()
    keys = F.pad(real, (start, 0), value=True)  # padding is seen by none, and sees the beginning
    return (same & causal)[None, None] & keys[:, None, None, :]


def packed_cross_entropy(model: Any, batch: Batch) -> torch.Tensor:
    """`objectives.cross_entropy` of rows in which several queries are packed (scalar)."""
    inputs = {name: tensor for name, tensor in batch.items() if name not in ("columns", "targets")}
    logits = model(**inputs, use_cache=False, logits_to_keep=batch["columns"]).logits  # (P, K·A, vocabulary)
    logits, targets = logits.to(torch.promote_types(logits.dtype, torch.float32)), batch["targets"]
    nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED)
    return (nll.reshape(targets.shape).sum(-1) / (targets != IGNORED).sum(-1)).mean()


@torch.no_grad()
def can_pack(vlm: VLM, examples: Sequence[Example], size: int) -> bool:
    """Whether a model reads packed rows as it reads rows of their own: these examples have the same loss."""
    batch = answer_batch(vlm, examples, [e.response for e in examples])
    if set(batch) - {"labels"} != READ:
        return False
    alone = cross_entropy(vlm.model, batch)
    try:
        together = packed_cross_entropy(vlm.model, packed(vlm, examples, size))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # it takes no such mask, or positions
        return False
    close = CLOSE if vlm.model.dtype == torch.float32 else ROUNDED
    return bool((together - alone).abs() <= close * alone.abs())
