"""Draft of notebook 09 as cells (kind, source): to be built with nbformat, executed and read. Delete when done."""

CELLS = [
    ("markdown", """# Inside the model: where does it refuse?

Every layer of a language model hands a vector on at every token. The mean of these vectors over refused queries, less the mean over answered ones, points towards *refusing*. What changes if only the first word changes is a direction as well. If training tied refusal to a word, the two should agree. Do they? And what happens to a model that is pushed along, or cannot go, that way?

**Run time:** two minutes after notebook 04. **Needs:** nothing."""),
    ("code", """import pandas as pd

import workbench as wb
from workbench.attribution.directions import ablated, cosines, direction, prompt_states, steered
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import rates
from workbench.judges.judge import judged
from workbench.studies.methods import CONTROL, trained"""),
    ("markdown", """## Two directions

120 validation queries, in which every first word is equally frequent among harmful and harmless ones."""),
    ("code", """queries = wb.miniguard_split("validation", seed=1, words="balanced", sizes=(60, 60))
models = {name: trained(name) for name in ("sft-early", CONTROL)}


def refused(vlm):
    answers = judged(ask(vlm, queries, ["none"], progress=False), queries, "exact")
    return (answers.outcome == "refusal").to_numpy()


refusing, rows = {}, []
for name, vlm in models.items():
    said_no, states = refused(vlm), prompt_states(vlm, queries, progress=False)
    refusing[name] = direction(states[:, said_no], states[:, ~said_no])
    for one, other in (("what", "share"), ("explain", "describe")):
        word = direction(prompt_states(vlm, queries, other, False), prompt_states(vlm, queries, one, False))
        pair = f"“{one.title()}” → “{other.title()}”"
        rows += [(name, pair, layer, cosine) for layer, cosine in enumerate(cosines(refusing[name], word), 1)]
figure = wb.plots.directions(pd.DataFrame(rows, columns=["model", "words", "layer", "cosine"]))"""),
    ("markdown", """In the model with the mirage, going from “What” to “Share” is going from answering to refusing. In the control, which refuses as often, it is not."""),
    ("markdown", """## Without the direction

No layer may hand on anything along the direction of refusing."""),
    ("code", """def outcomes(vlm, label):
    answers = judged(ask(vlm, queries, ["none"], progress=False), queries, "exact")
    return rates(answers.assign(model=label))


control = models[CONTROL]
tables = [outcomes(control, "control")]
with ablated(control, refusing[CONTROL]):
    tables.append(outcomes(control, "control, direction taken out"))
# … table of asr, rr, utility"""),
    ("markdown", """## Pushed along it

# steering at one layer, several strengths, on harmless queries that begin with “What”"""),
    ("markdown", """## What unlearning does

# base, NPO, RMU: how far states of harmful prompts move from the base's, per layer; along refusing or not"""),
]
