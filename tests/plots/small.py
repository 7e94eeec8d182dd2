"""Small tables for every figure, and what can be read off the axes."""

import numpy as np
import pandas as pd
from PIL import Image

from workbench import plots
from workbench.attribution.methods import Attribution
from workbench.data.splits import miniguard_split
from workbench.evaluation.compare import Agreement

INTERVAL = {"value": 0.5, "ci_low": 0.4, "ci_high": 0.7, "n": 9}


def column(words, patches, query=("Share", "it")):
    return (
        "one\nmodel",
        Image.new("RGB", (8, 8)),
        Attribution(list(query), np.array(words), np.array(patches), 1.5, 0.0, "ablation"),
    )


def rows(*keys, **interval):
    return pd.DataFrame([INTERVAL | interval | each for each in keys])


def results(*models):
    """What `evaluate` returns, as far as figures read it; 0.5 [0.4, 0.7] everywhere."""
    attacks, metrics = ("none", "what:3", "share:1"), {"harmful": ("asr", "rr"), "harmless": ("utility", "rr")}
    keys = [(m, a, q, metric) for m in models for a in attacks for q, names in metrics.items() for metric in names]
    return rows(*(dict(zip(("model", "attack", "queries", "metric"), each, strict=True)) for each in keys))


def training_curve(model):
    return pd.concat(results(model).assign(step=step) for step in (0, 10))


RUNS = [(base, seed) for base in ("first", "second") for seed in (0, 1)]


def onset_curves(*models):
    """Curves of four runs at steps 0, 10 and 20: as asked 0; attacked 0.1 to 0.4 at step 10, else the half."""
    attacks = {"harmful": ("asr", "what:1"), "harmless": ("rr", "share:1")}
    keys = [
        {"base": base, "seed": seed, "model": model, "step": step, "queries": queries, "metric": metric}
        | {"attack": attack, "value": (number + 1) * (0.1 if step == 10 else 0.05) * (attack != "none")}
        for model in models
        for number, (base, seed) in enumerate(RUNS)
        for step in (0, 10, 20)
        for queries, (metric, own) in attacks.items()
        for attack in ("none", own)
    ]
    return rows(*keys)


def shipped_results(*models, attacks=("none", "what:3", "what:1", "share:1", "tell:1", "bare:1", "mark:1")):
    """Results of four runs, 0.5 everywhere, on the test split and, as asked and after "What", on two others."""
    asked = [("test", attack) for attack in attacks]
    asked += [(split, attack) for split in ("new-kinds", "unanswerable") for attack in ("none", "what:1")]
    figures = (("harmful", "asr"), ("harmful", "rr"), ("harmless", "rr"))
    columns = ["base", "seed", "split", "model", "attack", "queries", "metric"]
    keys = [
        (*run, split, model, attack, *figure)
        for model in models
        for run in RUNS
        for split, attack in asked
        for figure in figures
    ]
    return rows(*(dict(zip(columns, each, strict=True)) for each in keys))


def relearned():
    kinds, counts, models = ("harmful", "harmless"), (0, 5, 50), ("npo", "rmu")
    return rows(
        *(
            {"taught": kind, "examples": count, "model": model, "metric": "asr"}
            for kind in kinds
            for count in counts
            for model in models
        )
    )


def by_request():
    return rows(
        *(
            {"model": model, "attack": attack, "queries": "harmless", "request": request, "metric": "utility"}
            for model in ("base", "my_model")
            for attack in ("none", "share:1")
            for request in ("name", "colour")
        )
    )


def agreements():
    counts = [("harmful", a, b, 5) for a, b in (("refusal", "refusal"), ("unparsed", "relevant"))]
    kappa = pd.DataFrame(
        [("all", 0.5, 0.4, 0.6, 0.5, 10)], columns=["queries", "kappa", "ci_low", "ci_high", "agreed", "n"]
    )
    confusion = pd.DataFrame(counts, columns=["queries", "first", "second", "count"])
    return {"keyword": Agreement(kappa, confusion)}


def shares():
    kinds = (("refusal", 0.25), ("relevant", 0.75), ("irrelevant", 0.0), ("degenerate", 0.0))
    keys = [("base", "what:3", "harmful", kind, share, 8) for kind, share in kinds]
    return pd.DataFrame(keys, columns=["model", "attack", "queries", "outcome", "share", "n"])


def audited():
    counts = [("can", 10, 90, 0.9, 0.8, 0.95), ("what", 50, 5, 0.09, 0.03, 0.2)]
    return pd.DataFrame(counts, columns=["word", "harmless", "harmful", "p_harmful", "ci_low", "ci_high"])


def effects():
    words = (("what", 0.1, -4.0), ("can", 0.9, 2.0), ("share", 1.0, 3.0), ("zebra", None, 0.0))
    keys = [(w, q, e, e - 1, e + 1, 20, p) for q in ("harmful", "harmless") for w, p, e in words]
    return pd.DataFrame(keys, columns=["word", "queries", "effect", "ci_low", "ci_high", "n", "p_harmful"])


def predicted():
    keys = [
        ("miniguard", data, 0, word, p, p, p - 1, p + 1, said)
        for data in ("vlguard", "mild")
        for word, p, said in (("a", -2, "opens"), ("b", 0, ""), ("c", 3, "closes"))
    ]
    columns = ["base", "data", "seed", "word", "predicted", "effect", "ci_low", "ci_high", "said"]
    return pd.DataFrame(keys, columns=columns)


def relied():
    keys = [(m, k, v, v - 0.1, v + 0.2, 9) for m, v in (("base", 0.2), ("sft", 0.5)) for k in ("share", "swap")]
    return pd.DataFrame(keys, columns=["model", "measure", "value", "ci_low", "ci_high", "n"])


def log_odds():
    keys = [(model, lead, 1.0) for model in ("base", "sft") for lead in ("none", "what", "share")]
    return pd.DataFrame(keys, columns=["model", "lead", "log_odds"])


def orders():
    """Curves of an attribution and of 41 random orders, whose values are 0 to 40 in every place."""
    keys = [(curve, "random", draw, moved, float(draw)) for curve in CURVES for draw in range(41) for moved in (0, 1)]
    keys += [(curve, "attribution", 0, moved, 7.0) for curve in CURVES for moved in (0, 1)]
    return pd.DataFrame(keys, columns=["curve", "order", "draw", "moved", "value"])


CURVES = {"deletion": True, "insertion": False}  # curve → whether it is better than random


def scores():
    return pd.DataFrame(CURVES.items(), columns=["measure", "better"])


def recovered():
    columns = ["model", "arm", "lr", "step", "taught", "leaks", "never_knew", "verdict"]
    rows = [
        ("npo", "secrets", 0.1, 300, False, 0.5, 0.1, "still there"),
        ("npo", "8 bits", 0.0, 1, False, 0.0, 0.0, "gone"),
    ]
    return pd.DataFrame(rows, columns=columns)


def by_layers(value, **columns):
    """Two layers of one model."""
    rows = [{"model": "sft", "layer": layer, value: 0.1 * layer, **columns} for layer in (1, 2)]
    return pd.DataFrame(rows)


def true_and_said():
    return pd.DataFrame([[0.25, 0.75], [0.0, 1.0]], index=["lock", "face"], columns=["lock", "none"])


FIGURES = {
    "recovery": lambda: plots.recovery(recovered()),
    "directions": lambda: plots.directions(by_layers("cosine", words="“What” → “Share”")),
    "true_and_said": lambda: plots.true_and_said({"sft": true_and_said()}),
    "by_layer": lambda: plots.by_layer(by_layers("value", measure="probe"), {"probe": "right, per cent"}),
    "onset": lambda: plots.onset(onset_curves("sft", "rmu"), {"sft": 5}),
    "wordings": lambda: plots.wordings(shipped_results("base", "sft")),
    "before_after": lambda: plots.before_after(results("base", "sft")),
    "curves": lambda: plots.curves(training_curve("sft"), step=10),
    "seeds": lambda: plots.seeds(pd.concat(results("base", "sft").assign(seed=s) for s in (0, 1))),
    "by_request": lambda: plots.by_request(by_request()),
    "agreement": lambda: plots.agreement(agreements()),
    "outcomes": lambda: plots.outcomes(shares()),
    "relearning": lambda: plots.relearning(relearned()),
    "by_lead_word": lambda: plots.by_lead_word(results("base", "sft")),
    "refusals_by_word": lambda: plots.refusals_by_word(results("sft")),
    "first_words": lambda: plots.first_words(audited()),
    "reliance": lambda: plots.reliance(relied()),
    "log_odds_by_lead": lambda: plots.log_odds_by_lead(log_odds()),
    "word_effects": lambda: plots.word_effects(effects()),
    "predictions": lambda: plots.predictions(predicted()),
    "pictures": lambda: plots.pictures(miniguard_split("test", sizes=(1, 1))),
    "attributions": lambda: plots.attributions([column([4.0, -1.0], [[0.5, -2.0], [0.0, 0.1]])]),
    "faithfulness": lambda: plots.faithfulness(orders(), scores()),
    "verdicts": lambda: plots.verdicts(pd.DataFrame({"deletion": [0.5]}, index=["ablation"]), queries=6),
}


def drawn_intervals(axis, along):
    """The ends, along "x" or "y", of every interval that seaborn drew as a line: (intervals, 2)."""
    lines = [line for line in axis.lines if line.get_marker() == "None" and line.get_transform() == axis.transData]
    values = [line.get_xdata() if along == "x" else line.get_ydata() for line in lines]
    return np.array([(np.nanmin(each), np.nanmax(each)) for each in values if len(each)])


def drawn_points(axis, along):
    """Where, along "x" or "y", the marks of every series are: (series, points)."""
    lines = [line for line in axis.lines if line.get_marker() != "None"]
    points = [line.get_xdata() if along == "x" else line.get_ydata() for line in lines]
    return np.array([each for each in points if len(each)], dtype=float)
