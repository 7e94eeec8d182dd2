"""Reading a prompt piece by piece gives what the whole model gives, and is not done if a piece looks ahead."""

import numpy as np
import pytest
import torch

from tests.attribution.by_hand import example_of, opening_logprob
from workbench.attribution.masking import Perturbed
from workbench.attribution.prefix import _can_share
from workbench.attribution.target import Target
from workbench.models.vlm import bare, prompt_batch


def test_shared_work_changes_nothing(vlm, other, few):
    """The target is that of the whole model run on each prompt and opening alone, read in pieces or not."""
    example = example_of(few)
    for model in (vlm, other):
        tokenizer, picture = model.processor.tokenizer, example.picture().resize((64, 64))
        f = Perturbed(model, picture, example.query, Target(("sorry but", "the")), 2)
        kind = bare(model.model).config.model_type
        # layers of qwen3_vl get more than embeddings, those of paligemma see columns that come later
        assert f.prompt.shares == (kind not in ("qwen3_vl", "paligemma")) and len(f.openings) == 2
        present = (torch.rand(9, f.features, generator=torch.Generator().manual_seed(1)) > 0.4).float()
        present[-3:, len(f.words) :] = 1  # the same picture
        expected = []
        for row in present:
            batch = prompt_batch(model, [f._picture(row[len(f.words) :].bool().numpy())], [example.query])
            gone = [w >= 0 and row[w].item() == 0 for w in f.word_of.tolist()]
            blank = tokenizer.pad_token_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id
            batch["input_ids"] = batch["input_ids"].masked_fill(torch.tensor(gone), blank)
            p = sum(opening_logprob(model, batch, tokens).exp() for tokens in f.openings)
            expected.append((p.log() - (1 - p).log()).item())
        assert np.std(expected) > 0.01
        assert f(present).numpy() == pytest.approx(np.array(expected), abs=1e-4)
        f.prompt.shares, f.known = False, {}
        assert f(present).numpy() == pytest.approx(np.array(expected), abs=1e-4)
        soft = f.soft(present).detach().numpy()
        assert soft == pytest.approx(np.array(expected), abs=0.05, rel=0.05)  # pixels are rounded


def test_a_piece_that_looks_ahead_is_not_read_alone(vlm, few):
    """A causal mask can be cut; one that sees what comes after a piece, or that is unknown, cannot."""
    causal = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    ahead = causal.clone()
    ahead[..., 1, 4] = True
    inside = causal.clone()
    inside[..., 2, 3] = True  # within the piece of columns 2 and 3
    added = torch.zeros(1, 1, 6, 6).masked_fill(~ahead, float("-inf"))
    for mask, can in (
        (None, True),
        (torch.ones(1, 6), True),
        ({"full_attention": causal}, True),
        ({"full_attention": inside}, True),
        ({"full_attention": ahead}, False),
        ({"full_attention": added}, False),
        ({"full_attention": causal, "sliding_attention": None}, False),
        (causal, False),
    ):
        assert _can_share(vlm, {"attention_mask": mask}, [2, 4, 6]) == can
    assert not _can_share(vlm, {"deepstack_visual_embeds": [torch.ones(1)]}, [2, 4, 6])
