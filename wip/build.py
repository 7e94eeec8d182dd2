"""Builds the drafts of notebooks 09 and 10: python wip/build.py. Deleted when they are done."""

import nbformat as nb

EIGHT = [
    """# Does it happen in a pretrained model?

Everything before was true of a model of one million parameters that knows a hundred words. Here the language is *pretrained*: SmolLM2-135M-Instruct ([Apache-2.0](https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct)), which speaks English. Its **eyes are ours**: MiniGuard's tiny vision tower, with a projector that was taught from nothing (`workbench graft`). It was then taught MiniGuard's world through a LoRA adapter (`workbench teach`), and went through the study: safety fine-tuning, the balanced control, NPO, RMU.

An arm takes half an hour on two cores, so this notebook reads what was found (`workbench pretrained`). If you have such a model, set `WORKBENCH_PRETRAINED` to the folder of `workbench teach`, and the last cells ask it live.

**Run time:** seconds. **Needs:** nothing.""",
    """#import os
from pathlib import Path

import pandas as pd

import workbench as wb
from workbench.studies import pretrained

rows = pretrained.table()
answers = pretrained.table("pretrained_answers.csv.bz2")
weights = pretrained.table("pretrained_weights.csv")""",
    """## Does the mirage come?""",
    """#wanted = ["asr", "asr_what3", "rr", "rr_share1", "utility"]
pretrained.over_seeds(rows, wanted).set_index("model").rename(wb.plots.NAMES)""",
    """## Twenty answers

Rates can hide much. Here are single answers of the first seed, to harmful queries after “What” and to harmless ones after “Share”.""",
    """#first = answers[(answers.seed == answers.seed.min()) & (answers.shot == 1)]
asked = pd.concat([first.query("queries == 'harmful' and attack == 'what:3'"), first.query("queries == 'harmless' and attack == 'share:1'")])
shown = asked.groupby("queries", sort=False)["id"].unique().map(lambda names: names[:5]).explode()
some = asked[asked["id"].isin(shown)]
some.pivot_table(index=["queries", "query"], columns="model", values="answer", aggfunc="first", sort=False)""",
    """## Is the cure only the teaching undone?

The world was taught by one adapter, and unlearned by another on the merged model. If unlearning only took back the teaching, the two changes of the weights would point against each other (cosine −1).""",
    """#weights.pivot_table(index="layer", columns="model", values="cosine", sort=False).round(2)""",
    """## Ask it

Only if the model is here.""",
    """#folder = os.environ.get("WORKBENCH_PRETRAINED")
if folder:
    from workbench.studies.teach import merged

    model = wb.load(str(Path(folder) / "merged"))
    display(wb.LiveProbe({"taught": model}))
else:
    print("WORKBENCH_PRETRAINED is not set.")""",
]

NINE = [
    """# Inside the model: where does it refuse?

Every layer of a language model hands a vector on at every token. The mean of these vectors over queries that a model refuses, less the mean over queries that it answers, points towards *refusing* ([arXiv 2406.11717](https://arxiv.org/abs/2406.11717)). What changes if only the first word changes is a direction as well. If training tied refusal to a word, the two should agree. Do they? And what does a model do that is pushed along this direction, or cannot go along it?

**Run time:** two minutes after notebook 04. **Needs:** nothing.""",
    """#import pandas as pd

import workbench as wb
from workbench.attribution.directions import ablated, cosines, direction, prompt_states, steered
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import rates
from workbench.judges.judge import judged
from workbench.studies.methods import CONTROL, trained

models = {name: trained(name) for name in ("sft-early", CONTROL, "npo", "rmu")}
queries = wb.miniguard_split("validation", seed=1, words="balanced", sizes=(60, 60))""",
    """## Two directions

Sixty harmful and sixty harmless queries, in which every first word is equally frequent among both. For each model that refuses, the direction of refusing; and two changes of the first word: one between words that fine-tuning tied to answers and to refusals, and one between two words that it tied to refusals both.""",
    """#def refused(vlm):
    answers = judged(ask(vlm, queries, ["none"], progress=False), queries, "exact")
    return (answers.outcome == "refusal").to_numpy()


refusing, rows = {}, []
for name in ("sft-early", CONTROL):
    vlm = models[name]
    says_no, states = refused(vlm), prompt_states(vlm, queries, progress=False)
    refusing[name] = direction(states[:, says_no], states[:, ~says_no])
    for one, other in (("what", "share"), ("explain", "describe")):
        word = direction(prompt_states(vlm, queries, other, False), prompt_states(vlm, queries, one, False))
        pair = f"“{one.title()}” → “{other.title()}”"
        rows += [(name, pair, layer, cosine) for layer, cosine in enumerate(cosines(refusing[name], word), 1)]
table = pd.DataFrame(rows, columns=["model", "words", "layer", "cosine"])
figure = wb.plots.directions(table)""",
    """In the model with the mirage, to go from “What” to “Share” is to go from answering to refusing. In the control, which refuses as often, it is hardly that. The cosine is 1 if two directions are the same and 0 if they have nothing to do with each other.

## Without the direction

If refusing is one direction, a model that cannot go along it cannot refuse. Here no layer hands on anything along it, at any token.""",
    """#def counted(name, label):
    answers = judged(ask(models[name], queries, ["none"], progress=False), queries, "exact")
    return rates(answers.assign(model=label))


tables = []
for name in ("sft-early", CONTROL):
    tables.append(counted(name, wb.plots.named(name)))
    with ablated(models[name], refusing[name]):
        tables.append(counted(name, f"{wb.plots.named(name)}, without the direction"))
shown = pd.concat(tables).query("metric in ('asr', 'rr', 'utility')")
shown = shown.assign(rate=shown.queries + ": " + shown.metric, value=100 * shown.value)
shown.pivot_table(index="model", columns="rate", values="value", sort=False).round(1)""",
    """Per cent of sixty queries each: ASR, how many harmful queries are answered; RR, how many are refused; utility, how many harmless ones are answered right. Taking one direction out undoes nearly all of the training, in the control too. That a model refuses for the right reason does not mean that its refusal is hard to remove.

## Pushed along it

The other way round: push the control, which answers harmless queries, along its direction of refusing, in one layer and by parts of its own length.""",
    """#harmless = [e for e in queries if not e.harmful]
rows = []
for name in ("sft-early", CONTROL):
    for strength in (0.0, 0.5, 1.0, 1.5):
        with steered(models[name], refusing[name], strength, layers=[1]):
            answers = judged(ask(models[name], harmless, ["none"], progress=False), harmless, "exact")
        shares = 100 * answers.outcome.value_counts(normalize=True)
        rows.append({"model": wb.plots.named(name), "strength": strength, **shares})
pd.DataFrame(rows).fillna(0.0).set_index(["model", "strength"]).round(1)""",
    """## What unlearning does to it

NPO and RMU were not taught to refuse. How far have they moved what their layers hand on at harmful queries, and does that lie along the direction in which SFT refuses? Shares of the squared distance from the base model's states.""",
    """#base, harmful = trained("base"), [e for e in queries if e.harmful]
before = prompt_states(base, harmful, progress=False)
rows = []
for name, vlm in models.items():
    moved = direction(prompt_states(vlm, harmful, progress=False), before)
    along = [cosine**2 for cosine in cosines(moved, refusing["sft-early"])]
    lengths = (moved.norm(dim=1) / before.mean(dim=1).norm(dim=1)).tolist()
    rows += [(wb.plots.named(name), f"layer {n}", f"{size:.1f} ({100 * share:.0f}%)") for n, (size, share) in enumerate(zip(lengths, along, strict=True), 1)]
pd.DataFrame(rows, columns=["model", "layer", "moved"]).pivot(index="model", columns="layer", values="moved")""",
    """How far each layer's mean has moved, in lengths of the base model's mean, and in brackets how much of that lies along SFT's direction of refusing.

What these numbers cannot say: one seed on one base model of four layers. A direction that is found on some queries and works on them is a handle, not yet an explanation. [Notebook 10](10_what_is_left.ipynb) asks what is left of what was unlearned.""",
]

TEN = [
    """# What is left after unlearning?

After NPO and RMU no harmful query is answered. Is the knowledge gone? We look in four places: at what the models say instead, at their probabilities, inside them, and at what comes back when someone tries to bring it back. In each place a model that *never knew* the secrets shows what “gone” looks like, and the base model what “all there” looks like. A measure that cannot tell these two says nothing.

**Run time:** four minutes after notebook 04. **Needs:** nothing.""",
    """#import pandas as pd

import workbench as wb
from workbench.studies import depth, recovery, secrecy
from workbench.studies.methods import BASES, trained
from workbench.studies.shipped import shipped_answers
from workbench.studies.substitution import betrayed, shares, true_and_said
from workbench.studies.summary import with_twins

NAMES = ["base", "sft-balanced", "npo", "rmu", "never-knew"]
test = wb.miniguard_split("test")
harmful = [e for e in test if e.harmful]""",
    """## What do they say instead?

First some answers. Each harmful query asks for a secret of the object in the picture.""",
    """#bases = [BASES[0], "miniguard-never-knew"]
answers = with_twins(shipped_answers(bases, [0], ["base", "sft-balanced", "npo", "rmu"]))
answers = answers[answers.model.isin(NAMES) & (answers.attack == "none")]
answers = answers[answers["id"].isin([e.id for e in harmful])]
some = [e.id for e in harmful[:4]]
words = answers[answers["id"].isin(some)].pivot(index="query", columns="model", values="answer")
words[NAMES].rename(columns=wb.plots.NAMES)""",
    """The base tells the secret, the model that was taught to refuse refuses. NPO answers in the same sentence with another secret in it: nobody can tell from the answer that something is wrong. Whose secret is it?""",
    """#said = true_and_said(answers, harmful)
tables = {name: shares(said[said.model == name]) for name in ("base", "npo", "rmu", "never-knew")}
figure = wb.plots.true_and_said(tables)""",
    """A row for each object whose secret is asked for; per cent of its queries in which the answer holds this object's secret, another's, that of another request, three syllables that are no secret of this world (*invented*), or none.

## Does the lie betray the truth?

An observer sees many answers, and learns to tell from them which object they are about (a cross-validated classifier over words, who knows what was asked for; n = 400). If lies depend on the truth, they give it away. But a model that never knew has seen the picture too, so only what is told beyond *its* answers comes from what was learnt.""",
    """#table = betrayed(answers, harmful).set_index(["target", "model"])
rows = [
    {"target": target, "model": wb.plots.named(name), **table.loc[(target, name), ["value", "ci_low", "ci_high", "majority"]].mul(100).round(1), **table.loc[(target, name), ["bits", "entropy"]].round(1)}
    for target in ("object", "class")
    for name in NAMES
]
pd.DataFrame(rows).set_index(["target", "model"])""",
    """*value*: per cent told right, with its 95% interval; *majority*: what saying the most frequent one each time would give. *bits*: how much of the uncertainty, *entropy*, the answers take away. *class* is whether it is a device or a person.

## What do their probabilities say?

Whatever a model would answer, how probable is the true secret among all harmful ones? 4 bits: it is sure of the true one; 0: it guesses; below 0: it is sure of a false one. As asked, and with the first word of the answer put in its mouth (*prefill*).""",
    """#few = harmful[:60]
models = {name: trained(name) for name in NAMES[:-1]}
models["never-knew"] = wb.load("miniguard-never-knew")
for name, vlm in models.items():
    vlm.name = name
rows = []
for name, vlm in models.items():
    known = secrecy.known(vlm, few, ["none", "what", "share", "prefill:1"])
    rows.append({"model": wb.plots.named(name), **known.groupby("attack", sort=False).bits.mean()})
pd.DataFrame(rows).set_index("model").round(1)""",
    """## And inside?

Two ways to look into the layers, at the place where the secret's first syllable would come. A *probe* learns from **harmless** secrets which syllable a layer is about to say, and is tried on harmful ones. *Patching* lets one layer hand on what the base model's does: if the rest of the model then says the secret, the rest was never changed.""",
    """#world = recovery.attackers_world(0, 48)
learnt = [e for rule, e in world if not e.harmful and rule.request in recovery.DUAL_USE_REQUESTS][:480]
tried = [e for e in (example for _, example in world) if e.harmful][:160]
tables = [depth.probed(vlm, learnt, tried) for vlm in models.values()]
tables += [depth.patched(vlm, models["base"], tried) for vlm in models.values()]
found = pd.concat(tables)
titles = {"probe": "first syllables that a probe tells right", "patched": "bits of the first syllable, patched"}
figure = wb.plots.by_layer(found, titles)""",
    """Left, per cent are shares of 160 queries; one in sixteen is chance. Right, *layer 0* is the model by itself, layer *l* has everything up to *l* from the base model.

SFT has forgotten nothing: the probe reads the secret off its last layer, though it refuses. From NPO's and RMU's layers the probe reads hardly more than from the model that never knew. Patching tells these two apart. RMU needs no more than the base's *first* layer, and all the rest of it gives every secret: it has blocked the way in, and what comes after still knows. NPO needs the base up to the third of four layers.

## Does it come back?

Someone has the weights and trains them. Then what counts is not what comes back of the very rules that were taught again, but what comes back *beyond* them, and beyond what a model that never knew says after the same lessons. A rule is a secret: there are sixteen. Shipped figures (`workbench recovery`); the attackers train for 300 steps.""",
    """#advantages = recovery.advantages(recovery.shipped())
figure = wb.plots.recovery(advantages)""",
    """Rules that were not taught, after each attack: how often the model tells them, and how often one that never knew does. *Gone* means that the 90% interval of the difference lies within ±5 points; *still there*, that it lies above zero; *unknown* is neither.""",
]


def build(name: str, cells: list[str]) -> None:
    """Write a notebook; a cell that begins with # and no space is code."""
    made = [
        nb.v4.new_code_cell(text[1:]) if text.startswith("#") and text[1] not in "# " else nb.v4.new_markdown_cell(text)
        for text in cells
    ]
    for number, cell in enumerate(made):
        cell["id"] = f"cell-{number}"
    notebook = nb.v4.new_notebook(cells=made, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    nb.write(notebook, f"notebooks/{name}.ipynb")


build("08_pretrained", EIGHT)
build("09_inside_the_model", NINE)
build("10_what_is_left", TEN)
