"""The README's numbers are those of the shipped tables, and what it shows can be run."""

import re
from pathlib import Path

import pandas as pd
import pytest

from workbench import plots
from workbench.data.first_words import predicted_effect, word_table
from workbench.data.splits import first_words
from workbench.files import data_dir
from workbench.studies.methods import CONTROL
from workbench.studies.paper import paper_table, seed_medians, summary
from workbench.studies.predictions import correlations
from workbench.training.memory import GIB, configuration, predict
from workbench.training.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def five_seeds():
    return pd.read_csv(data_dir() / "five_seeds.csv", keep_default_na=False)


def table_rows():
    """The README's table of results, as `workbench seeds` gives it, and the paper's rows under it."""
    ours = [(plots.NAMES[row.model], *row[2:]) for row in seed_medians(five_seeds()).itertuples()]
    paper = paper_table()
    theirs = [
        (f"paper: {row.paper_name}", *("–" if pd.isna(v) else f"{v:.1f}" for v in row[3:]))
        for row in paper.itertuples()
    ]
    return ["| " + " | ".join(row) + " |" for row in ours + theirs]


@pytest.mark.parametrize("row", table_rows())
def test_the_table_of_results_is_that_of_the_shipped_runs(row):
    assert row in README.splitlines()


def test_the_shipped_runs_keep_the_projects_promises():
    """Medians over seeds 0 to 4: the mirage, the control, the cure."""
    table = pd.concat([summary(g) for _, g in five_seeds().groupby("seed")]).groupby("model").median()
    base, sft, control, npo = (table.loc[m] for m in ("base", "sft", CONTROL, "npo"))
    assert (
        sft.asr <= 4 and sft.asr_what3 >= 50 and sft.rr <= 6 and sft.rr_share1 >= 75 and base.utility - sft.utility <= 3
    )
    assert control.asr_what3 - control.asr <= 10 and control.rr_share1 - control.rr <= 15
    for cure in (npo, table.loc["npo-repaired"], table.loc["rmu-repaired"]):
        assert cure.asr_what3 <= 13 and cure.rr_share1 <= 12 and base.utility - cure.utility_lead <= 2
    refusing = table.loc["dpo-repaired"]
    assert refusing.asr_what3 <= 5 and refusing.rr_share1 <= 5 and refusing.neither_what3 <= 50
    assert table.loc["dpo"].asr_what3 >= 30  # the refusal label carries the mirage, whatever the optimiser


def test_what_is_said_of_predictions_is_what_the_shipped_table_says():
    table = pd.read_csv(data_dir() / "predictions.csv", keep_default_na=False)
    found = correlations(table).set_index("data")
    said = {name: f"{row.rho:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}]" for name, row in found.iterrows()}
    text = " ".join(README.split())
    assert (
        f"agree with ρ = {said['all']} (Spearman's, 11 words in 6 datasets; VLGuard's own statistics alone {said['vlguard']};"
        in text
    )
    words = word_table(first_words("train"))
    named = {does: words.word[predicted_effect(words) == does].tolist() for does in ("opens", "closes")}
    listed = f"{', '.join(named['closes'][:-1])} and {named['closes'][-1]}"
    assert named["opens"] == ["what"] and f"“what” opens, and {listed} close" in text


def plan_rows():
    """(model, its settings, GiB) of every prediction in the README's table of GPUs."""
    found = []
    for model, gib, *cells in re.findall(r"\| `(\S+)` \| (\d+) GiB \| (.+): ([\d.]+) \| (.+): ([\d.]+) \|.*\|", README):
        found += [(model, int(gib), "npo", *cells[:2]), (model, int(gib), "rmu", *cells[2:])]
    return found


@pytest.mark.long
@pytest.mark.slow
def test_the_table_of_gpus_is_what_plan_predicts():
    rows = plan_rows()
    assert len(rows) == 32
    prompts = {"llava-hf": 640, "Qwen": 1024, "HuggingFaceTB": 1200}  # tokens, as the README says
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


@pytest.mark.slow
def test_the_recipes_of_reproduce_fit_as_the_readme_says():
    config, common = configuration("llava-hf/llava-1.5-7b-hf"), {"rank": 128}
    for settings in (
        Settings.of("sft", forget=80, retain=48, accumulate=16, checkpointing=True, **common),
        Settings.of("npo", forget=4, retain=4, checkpointing=True, **common),
        Settings.of("rmu", forget=4, retain=4, accumulate=4, layer=15, **common),
    ):
        total = predict(config, settings, answer=128).total
        assert f" {total / GIB:.1f}" in README.partition("on 24 GiB the prediction is")[2][:400] and total < 24 * GIB


def test_every_command_and_file_that_the_readme_names_exists():
    from workbench.cli.app import app

    commands = {c.name or c.callback.__name__ for c in app.registered_commands} | {"data"}
    assert set(re.findall(r"`workbench ([\w-]+)", README)) <= commands
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_readmes_python_is_what_the_package_offers():
    import workbench

    for name in set(re.findall(r"\bwb\.(\w+)", README)):
        assert callable(getattr(workbench, name)) or name == "plots", name
