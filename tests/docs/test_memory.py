"""The predicted memory in docs/memory.md and docs/own_model.md is what `workbench plan` predicts."""

import re

import pytest

from tests.docs.pages import MEMORY, OWN_MODEL
from workbench.models.configuration import configuration
from workbench.training.memory import GIB, predict
from workbench.training.settings import Settings


def plan_rows():
    """(model, the GPU's GiB, method, settings, predicted GiB) of every prediction in the table of GPUs."""
    row = r"\| `(\S+)` \| (\d+) GiB \| (.+): ([\d.]+) \| (.+): ([\d.]+) \|.*\|"
    rows = []
    for model, gib, *cells in re.findall(row, MEMORY):
        rows += [(model, int(gib), "npo", *cells[:2]), (model, int(gib), "rmu", *cells[2:])]
    return rows


@pytest.mark.long
@pytest.mark.slow
def test_the_table_of_gpus_is_what_plan_predicts():
    rows = plan_rows()
    assert len(rows) == 32
    prompts = {"llava-hf": 640, "Qwen": 1024, "HuggingFaceTB": 1200}  # tokens, as the page says
    for model, gib, method, saving, predicted in rows:
        parts = re.search(r"(\d+) parts", saving)
        settings = Settings.of(
            method,
            forget=4,
            retain=4,
            accumulate=int(parts[1]) if parts else 1,
            checkpointing="checkpointing" in saving,
            four_bit="4 bits" in saving,
            **({"layer": 7} if method == "rmu" else {}),
        )
        total = predict(configuration(model), settings, prompts[model.split("/")[0]]).total
        assert f"{total / GIB:.1f}" == predicted and total < gib * GIB


@pytest.mark.long
@pytest.mark.slow
def test_the_recipes_of_reproduce_fit_as_the_page_says():
    config, common = configuration("llava-hf/llava-1.5-7b-hf"), {"rank": 128}
    predictions = " ".join(OWN_MODEL.split()).partition("on 24 GiB the prediction is")[2][:400]
    for settings in (
        Settings.of("sft", forget=80, retain=48, accumulate=16, checkpointing=True, **common),
        Settings.of("npo", forget=4, retain=4, checkpointing=True, **common),
        Settings.of("rmu", forget=4, retain=4, accumulate=4, layer=15, **common),
    ):
        total = predict(config, settings, answer=128).total
        assert f" {total / GIB:.1f}" in predictions and total < 24 * GIB
