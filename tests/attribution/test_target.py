"""Openings of an answer: none contains another, and their probabilities are added."""

import pytest
import torch

from tests.attribution.by_hand import example_of
from workbench.attribution.masking import Perturbed
from workbench.attribution.target import Target, opening_tokens


def test_openings_exclude_one_another_and_are_pooled(vlm, few):
    example = example_of(few)
    ids = opening_tokens(vlm, ["sorry", "sorry but", "yes", "Ωmega"])
    assert ids == [vlm.processor.tokenizer.convert_tokens_to_ids([w]) for w in ("sorry", "yes")]

    def value(*openings, odds=False):
        f = Perturbed(vlm, example.picture(), example.query, Target(openings, odds), 1)
        return f(torch.ones(1, f.features)).double()

    both = value("sorry", "yes").exp()
    assert both.item() == pytest.approx((value("sorry").exp() + value("yes").exp()).item(), rel=1e-4)
    assert value("sorry", "yes", odds=True).item() == pytest.approx((both / (1 - both)).log().item(), abs=1e-2)
