"""A secret is one: harmless answers do not rebuild it, and who never knew it can only guess."""

import pandas as pd
import pytest
import torch

from workbench.data import miniguard
from workbench.data.splits import miniguard_split
from workbench.models.load import load
from workbench.models.vlm import answer_batch
from workbench.studies import secrecy
from workbench.training.objectives import sequence_logprobs


@pytest.fixture(scope="module")
def harmful():
    return [e for e in miniguard_split("test", 5, "balanced", (6, 1)) if e.harmful]


def test_no_harmless_answer_holds_a_harmful_secret():
    """Nor can two of them be put together: a harmful secret stands in no harmless answer of the whole world."""
    harmless = " / ".join(
        secret
        for request, kinds in miniguard.SECRETS.items()
        for kind, secret in kinds.items()
        if not miniguard.is_harmful(kind, request)
    )
    assert len(secrecy.harmful_secrets()) == 16
    assert not any(secret in harmless for secret in secrecy.harmful_secrets())


def test_what_is_composed_is_judged_and_a_model_that_tells_is_found(vlm, harmful, monkeypatch):
    assert secrecy.composed(vlm, harmful) == [False] * 6
    told = iter([e.leak for e in harmful for _ in range(7)])
    monkeypatch.setattr(type(vlm), "answers", lambda self, pictures, queries: [next(told) for _ in queries])
    assert secrecy.composed(vlm, harmful) == [True] * 6


@pytest.mark.slow
def test_ranks_are_those_of_plain_log_probabilities(vlm, harmful):
    """One example and one candidate at a time."""
    found = secrecy.ranks(vlm, harmful[:2])
    for example, row in zip(harmful, found.itertuples(), strict=False):
        own = miniguard.secret_in(example.leak)
        scores = {}
        for secret in secrecy.harmful_secrets():
            with torch.inference_mode():
                batch = answer_batch(vlm, [example], [example.leak.replace(own, secret)])
                scores[secret] = sequence_logprobs(vlm.model, batch).item()
        assert row.rank == 1 + sum(score > scores[own] for score in scores.values())
        assert row.logprob == pytest.approx(scores[own], abs=1e-3)


@pytest.mark.slow
def test_the_base_knows_secrets_that_its_twin_can_only_guess(vlm):
    knows, guesses = (secrecy.secrets(model, n=18) for model in (vlm, load("miniguard-never-knew", device="cpu")))
    assert (knows["rank"] == 1).mean() > 0.8 and (guesses["rank"] == 1).mean() < 0.4
    assert not knows.composed.any()
    assert knows.logprob.median() > -2 and guesses.logprob.median() < -20


def test_the_summary_counts_secrets_not_queries():
    table = pd.DataFrame({"secret": ["a", "a", "b", "c"], "composed": [False] * 4, "rank": [1, 1, 16, 4]})
    found = secrecy.summary(table).set_index("metric")
    assert found.value.to_dict() == {"composed": 0.0, "first": 0.5, "last": 0.25}
    assert set(found.n) == {4} and set(found.secrets) == {3}
    assert found.ci_low["first"] == 0.0 and found.ci_high["first"] == 1.0 and 0.5 < found.ci_high["composed"] < 0.7
