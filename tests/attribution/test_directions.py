"""Directions inside a model: states are the network's own, and changes do what they say and end with their block."""

import pytest
import torch

from workbench.attribution.directions import ablated, cosines, direction, prompt_states, steered
from workbench.data.splits import miniguard_split
from workbench.models.vlm import prompt_batch


@pytest.fixture(scope="module")
def states(vlm, few):
    return prompt_states(vlm, few, progress=False)


def test_states_are_those_that_transformers_gives(vlm, few, states):
    batch = prompt_batch(vlm, [e.picture() for e in few], [e.query for e in few])
    with torch.inference_mode():
        given = vlm.model(**batch, output_hidden_states=True).hidden_states  # of embeddings, then of each layer
        torch.testing.assert_close(
            states[:-1], torch.stack([each[:, -1] for each in given[1:-1]]), atol=1e-4, rtol=1e-4
        )
        last = vlm.model.get_decoder().norm(states[-1])  # transformers gives the last one after the norm
    torch.testing.assert_close(last, given[-1][:, -1], atol=1e-4, rtol=1e-4)


def test_a_direction_is_a_difference_of_means(states):
    one, other = states[:, :5], states[:, 5:9]
    found = direction(one, other)
    for layer in range(len(states)):
        expected = sum(one[layer]) / 5 - sum(other[layer]) / 4
        torch.testing.assert_close(found[layer], expected, atol=1e-4, rtol=1e-4)
    assert cosines(found, 3 * found) == pytest.approx([1] * len(found))
    assert cosines(found, -found) == pytest.approx([-1] * len(found))


def test_steering_adds_the_direction_to_the_layers_that_are_named(vlm, few, states):
    towards = direction(states[:, :12], states[:, 12:])
    with steered(vlm, towards, 0.5, layers=[1]):
        changed = prompt_states(vlm, few, progress=False)
    torch.testing.assert_close(changed[0], states[0])
    torch.testing.assert_close(changed[1], states[1] + 0.5 * towards[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(changed[2], states[2])
    torch.testing.assert_close(prompt_states(vlm, few, progress=False), states)


def test_nothing_along_an_ablated_direction_is_handed_on(vlm, few, states):
    along = direction(states[:, :12], states[:, 12:])
    with ablated(vlm, along):
        left = prompt_states(vlm, few, progress=False)
    unit = along / along.norm(dim=1, keepdim=True)
    assert (torch.einsum("lnh,lh->ln", left, unit).abs() < 1e-3).all()
    assert torch.einsum("lnh,lh->ln", states, unit).abs().max() > 1


def test_a_block_that_fails_leaves_the_model_as_it_was(vlm, few, states):
    with pytest.raises(RuntimeError, match="on the way"), steered(vlm, states[:, 0]):
        raise RuntimeError("on the way")
    torch.testing.assert_close(prompt_states(vlm, few, progress=False), states)


@pytest.mark.slow
def test_the_words_direction_is_the_refusals_in_a_model_with_the_mirage(vlm, sft):
    """The shortcut, seen inside: what "Share" adds points where refusing does; another pair of words does not."""
    examples = miniguard_split("validation", seed=1, words="balanced", sizes=(40, 40))
    refused, answered, others = (prompt_states(sft, examples, word, False) for word in ("share", "what", "describe"))
    mirage = direction(prompt_states(sft, examples, "explain", False), answered)  # nearly all are refused after it
    assert min(cosines(mirage, direction(refused, answered))) > 0.6
    assert max(map(abs, cosines(mirage, direction(refused, others)))) < 0.5


@pytest.mark.slow
def test_answers_follow_the_direction_of_refusing(sft):
    """Added where queries are answered, it makes refusals; answers come through the same path as any others."""
    examples = [
        e for e in miniguard_split("validation", seed=1, words={"what": (1, 1)}, sizes=(1, 24)) if not e.harmful
    ]
    towards = direction(*(prompt_states(sft, examples, word, False) for word in ("share", "what")))
    pictures, queries = [e.picture() for e in examples], [e.query for e in examples]

    def refusals():
        return sum("sorry" in answer for answer in sft.answers(pictures, queries))

    assert refusals() <= 2
    with steered(sft, towards, layers=[2]):
        assert refusals() >= 20
    assert refusals() <= 2
