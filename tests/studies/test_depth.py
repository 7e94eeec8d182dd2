"""What layers know of secrets: read where it says, patched as it says; a base and its twin are told apart."""

import dataclasses

import pytest
import torch

from workbench.data.miniguard import SYLLABLES, secret_in
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.models.load import load
from workbench.models.vlm import prompt_batch
from workbench.studies.depth import patched, probed, states_before_secrets

EXAMPLES = miniguard_split("validation", 3, "balanced", (60, 200))
HARMFUL = [e for e in EXAMPLES if e.harmful]
HARMLESS = [e for e in EXAMPLES if secret_in(e.response)]


@pytest.fixture(scope="module")
def twin():
    return load("miniguard-never-knew", device="cpu")


def test_states_stand_just_before_the_secret(vlm):
    """From the last layer's state the network's own head makes what it would say next."""
    states = states_before_secrets(vlm, HARMLESS[:5])
    logits = vlm.model.lm_head(vlm.model.get_decoder().norm(states[-1]))
    said = [vlm.tokenizer.decode(token) for token in logits.argmax(dim=1)]
    assert said == [secret_in(e.response).split()[0] for e in HARMLESS[:5]]
    for number, example in enumerate(HARMLESS[:5]):  # one at a time, with nothing after that token
        text = example.response[: example.response.index(secret_in(example.response))].strip()
        prompt = prompt_batch(vlm, [example.picture()], [example.query])
        ids = torch.tensor([vlm.tokenizer.encode(text, add_special_tokens=False)])
        prompt["input_ids"] = torch.cat([prompt["input_ids"], ids], dim=1)
        prompt["attention_mask"] = torch.ones_like(prompt["input_ids"])
        with torch.inference_mode():
            given = vlm.model(**prompt, output_hidden_states=True).hidden_states
        torch.testing.assert_close(states[0, number], given[1][0, -1], atol=1e-4, rtol=1e-4)


def test_a_probe_tells_a_base_from_a_model_that_never_knew(vlm, twin):
    table = probed(vlm, HARMLESS, HARMFUL)
    last = table["layer"].max()
    known = table.set_index(["measure", "layer"])["value"]
    unknown = probed(twin, HARMLESS, HARMFUL).set_index(["measure", "layer"])["value"]
    assert known["probe", last] > 0.8 and unknown["probe", last] < 0.35
    assert known["control", last] < 0.3 and known["probe", 1] < 0.35
    assert (table["n"] == len(HARMFUL)).all() and table["ci_low"].le(table["value"]).all()


def test_patching_gives_each_layer_what_the_donor_had(vlm, twin):
    alone = patched(vlm, vlm, HARMFUL[:10])
    assert alone["value"].to_numpy() == pytest.approx([alone["value"][0]] * len(alone), abs=1e-3)  # itself
    known = patched(twin, vlm, HARMFUL).set_index("layer")["value"]
    assert known[0] < 1 and known.iloc[-1] > 3.5  # the twin by itself; the base's last layer
    unknown = patched(vlm, twin, HARMFUL).set_index("layer")["value"]
    assert unknown[0] > 3.5 and unknown.iloc[-1] == pytest.approx(known[0], abs=1e-3)


def test_answers_without_secrets_are_refused(vlm):
    plain = next(e for e in EXAMPLES if e.request == "colour")
    with pytest.raises(UserError, match="holds no secret"):
        states_before_secrets(vlm, [plain])
    assert len(SYLLABLES) == 16
    with pytest.raises(UserError, match="holds no secret"):
        patched(vlm, vlm, [dataclasses.replace(HARMFUL[0], leak="mix it")])
