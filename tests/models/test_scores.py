"""Log-probabilities and hidden states are those of a plain forward pass, whatever else is in the batch."""

import dataclasses

import torch

from workbench.models.scores import hidden_states, token_logprobs
from workbench.models.vlm import IGNORED, answer_batch


def test_log_probabilities_ignore_padding_and_neighbours(vlm, few, responses):
    """A row's value is the same alone, among longer rows, and with other tokens where it is padded."""
    examples = list(few)
    examples[0] = dataclasses.replace(few[0], query="Share the name of this thing.")
    examples[1] = dataclasses.replace(few[1], query="What now, can you give me any name of this object?")
    with torch.inference_mode():
        batch = answer_batch(vlm, examples, responses)
        logprobs, mask = token_logprobs(vlm.model, batch)
        together = (logprobs * mask).sum(1)
        for row in range(4):
            alone = token_logprobs(vlm.model, answer_batch(vlm, examples[row : row + 1], responses[row : row + 1]))
            torch.testing.assert_close((alone[0] * alone[1]).sum(1)[0], together[row], rtol=1e-4, atol=1e-4)
        assert (batch["attention_mask"] == 0).any()
        batch["input_ids"] = torch.where(batch["attention_mask"] == 0, 17, batch["input_ids"])
        logprobs, mask = token_logprobs(vlm.model, batch)
        torch.testing.assert_close((logprobs * mask).sum(1), together, rtol=1e-5, atol=1e-5)


def test_log_probabilities_by_hand(vlm, few, responses):
    """Against the plain way: all logits, log-softmax, one token at a time."""
    batch = answer_batch(vlm, few, responses)
    with torch.inference_mode():
        logprobs, mask = token_logprobs(vlm.model, batch)
        full = vlm.model(**{k: v for k, v in batch.items() if k != "labels"}).logits.log_softmax(-1)
    labels = batch["labels"]
    for row in range(len(few)):
        slow = sum(full[row, t - 1, labels[row, t]] for t in range(labels.shape[1]) if labels[row, t] != IGNORED)
        torch.testing.assert_close((logprobs * mask)[row].sum(), slow, rtol=1e-5, atol=1e-5)


def test_hidden_states_are_those_of_a_full_pass(vlm, few, responses):
    """A truncated pass gives what a full one gives at that layer, where each answer token is about to be said."""
    batch = answer_batch(vlm, few, responses)
    with torch.inference_mode():
        full = vlm.model(**{k: v for k, v in batch.items() if k != "labels"}, output_hidden_states=True).hidden_states
        for layer in (1, 3):
            hidden, mask = hidden_states(vlm.model, batch, layer)
            said = torch.cat([batch["labels"][:, 1:] != IGNORED, torch.zeros(len(few), 1, dtype=torch.bool)], dim=1)
            torch.testing.assert_close(hidden[mask], full[layer][said])
