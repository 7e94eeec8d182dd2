"""Words and squares are masked where a person sees them, softly too, and nothing else matters."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.attribution.by_hand import example_of
from workbench.attribution.masking import Perturbed
from workbench.attribution.methods import attribute
from workbench.attribution.target import REFUSAL, Target, answer_target
from workbench.errors import UserError
from workbench.models.load import load


def test_spaces_around_a_query_do_not_matter(few):
    """Also if the chat template trims them, so that the prompt does not contain the query as it was typed."""
    vlm = load("miniguard", device="cpu")
    vlm.processor.chat_template = vlm.processor.chat_template.replace("part['text']", "part['text'] | trim")
    picture = few[0].picture()
    bare, spaced = (attribute(vlm, picture, query, grid=1) for query in ("What is it?", "  What is it? \n"))
    assert spaced.query == bare.query and spaced.words == pytest.approx(bare.words)


def test_the_softened_target_is_the_target_at_its_corners(vlm, other, few):
    """Up to the rounding of pixels, also if the processor resizes the picture and cuts it into tiles."""
    for model, odds, size, close in ((vlm, True, 48, 1e-3), (vlm, True, 64, 0.05), (other, False, 64, 0.02)):
        example = example_of(few)
        f = Perturbed(
            model, example.picture().resize((size, size)), example.query, Target((example.response,), odds), 2
        )
        corners = (torch.rand(12, f.features, generator=torch.Generator().manual_seed(1)) > 0.5).float()
        with torch.no_grad():
            assert f.soft(corners).numpy() == pytest.approx(f(corners).numpy(), abs=close, rel=close)
        attribution = attribute(model, f.image, example.query, f.target, "integrated-gradients", grid=2)
        assert abs(attribution.gap) < 0.15 * np.abs(attribution.flat).sum()


def test_what_must_not_matter_does_not(vlm, few):
    """Neither the order of perturbed prompts nor the others in their batch change a value."""
    example = example_of(few)
    f = Perturbed(vlm, example.picture(), example.query, REFUSAL, 3)
    present = (torch.rand(130, f.features, generator=torch.Generator().manual_seed(0)) > 0.4).float()
    together = f(present)
    f.known.clear()
    assert torch.allclose(together.flip(0), f(present.flip(0)), atol=1e-4)
    f.known.clear()
    assert torch.allclose(together[:3], torch.cat([f(row[None]) for row in present[:3]]), atol=1e-4)
    assert torch.equal(f(present.flip(0)).flip(0), f(present))  # also for rows whose value is known


@pytest.mark.slow
def test_a_square_is_where_a_person_sees_it(other):
    """However an architecture cuts a picture, a square matters most if it alone has something painted in it."""
    rng = np.random.default_rng(0)
    for row, column in ((0, 0), (1, 2), (3, 1)):
        pixels = np.full((64, 64, 3), 128, dtype=np.uint8)
        pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = rng.integers(0, 255, (16, 16, 3))
        attribution = attribute(other, Image.fromarray(pixels), "What is this?", answer_target("it is a kavu"), grid=4)
        strength = np.abs(attribution.patches)
        assert strength[row, column] > 0 and strength.argmax() == row * 4 + column
        assert attribution.query == ["What", "is", "this?"] and np.abs(attribution.words).min() > 0


def test_a_model_without_a_place_for_pictures_says_so(few):
    vlm = load("miniguard", device="cpu")
    whole = vlm.processor.chat_template
    for template, says in ((whole.replace("<image>", ""), "no place for a picture"), (None, "has no chat template")):
        vlm.processor.chat_template = template
        with pytest.raises(UserError, match=says):
            attribute(vlm, few[0].picture(), "What is it?")
