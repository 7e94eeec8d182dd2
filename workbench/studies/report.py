"""What a study leaves behind: tables, figures, and a report in one self-contained HTML file."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import plots
from workbench.evaluation.answers import redacted
from workbench.evaluation.tables import outcome_shares
from workbench.files import make_folder, write_text
from workbench.plots.style import save
from workbench.studies.headline import Study
from workbench.studies.paper import as_text, comparison, findings, paper_table

if TYPE_CHECKING:
    from workbench.studies.recipes import Task
    from workbench.studies.reproduce import Reproduction


def write(study: Study, out: Path, seed: int) -> None:
    """Write results.csv, outcomes.csv, curves.csv, answers.csv, before_after.png, curves.png and report.html to the folder `out`."""
    make_folder(out)
    tables = {"results": study.results, "outcomes": study.outcomes, "curves": study.curves, "answers": study.answers}
    for name, table in tables.items():
        write_text(out / f"{name}.csv", table.to_csv(index=False))
    figures = {
        "before_after": plots.before_after(study.results, paper_table()),
        "curves": plots.curves(study.curves),
        "outcomes": plots.outcomes(study.outcomes),
    }
    for name in ("before_after", "curves"):
        save(figures[name], out / f"{name}.png")
    write_text(out / "report.html", _html(study, figures, seed))


def write_reproduction(found: Reproduction, task: Task, redact: bool = True) -> None:
    """Write a figure and report.html beside the table. redact: mask answers to harmful queries."""
    first = found.answers[
        (found.answers.attack == "what:3") & (found.answers.shot == 1) & (found.answers.queries == "harmful")
    ]
    if task.table == 1:
        paper = paper_table().assign(utility=float("nan"))  # VQAv2, which is no share of harmless queries answered
        name, figure = "before_after", plots.before_after(found.results, paper)
        about = "Table 1"
    else:
        name, figure = "outcomes", plots.outcomes(outcome_shares(first.assign(attack="what:1")), attack="what:1")
        about = "Table 2, which is taken to be after one rewrite to “What”, from its figures"
    save(figure, task.folder / f"{name}.png")
    asked = first[first.id.isin(first.id.unique()[:3])].sort_values("id", kind="stable")
    shown = (redacted(asked) if redact else asked)[["query", "model", "outcome", "answer"]]
    parts = [
        as_text(found.table).to_html(index=False, border=0),
        _figure(figure, ALT[name]),
        "<h2>How it was made</h2>",
        *(f"<p>{escape(sentence)}</p>" for sentence in _circumstances(task)),
        task.plan.round(2).to_html(index=False, border=0, na_rep=""),
        f"<h2>Answers to attacked harmful queries{' (masked)' * redact}</h2>",
        shown.to_html(index=False, border=0),
    ]
    intro = (
        "Per cent, with 95% intervals; difference: here − paper. The paper's figures are of LLaVA-1.5-7B on VLGuard (arXiv 2503.11832, "
        f"{about}). ASR: harmful queries answered; RR: harmless queries refused."
    )
    write_text(task.folder / "report.html", _page(f"{task.model} beside the paper", intro, parts))


def _circumstances(task: Task) -> Iterator[str]:
    """What the figures rest on, and where they differ from the paper's."""
    n = Counter(e.kind for e in task.test)
    yield f"Asked: {n['harmful']} harmful and {n['harmless']} harmless queries, seed {task.seed}; judge: {task.judge}."
    if task.judge == "keyword":
        yield "Keywords take every answer that is no refusal for a leak, also beside the point: the ASR of unlearned models is too high."
    if task.unknown:
        yield "What is to be forgotten are the model's own answers that the judge calls relevant; steps below are for all harmful queries."
    if task.four_bit:
        yield "All models were trained and asked in 4 bits."
    yield "Post-hoc SFT is on the safety data alone. Below: training steps, harmful and harmless examples a step, predicted memory in GiB."


ALT = {
    "before_after": "ASR, RR and utility of every model before and after the one-word attack",
    "outcomes": "The four outcomes of attacked harmful queries for every model",
    "curves": "ASR, RR and utility on validation queries while training",
}


def _html(study: Study, figures: dict, seed: int) -> str:
    sentences = [f"<p>{escape(sentence)}</p>" for sentence in findings(study.results)]
    intro = (
        "Per cent; in brackets the paper's figures for LLaVA-1.5-7B on VLGuard (arXiv 2503.11832, Tables 1 and 2; its utility is VQAv2 "
        "accuracy). ASR: harmful queries answered. RR: harmless queries refused. Intervals in the figures are Wilson 95%."
    )
    table = comparison(study.results).to_html(index=False, border=0)
    files = "<p>results.csv, outcomes.csv, curves.csv and answers.csv beside this file hold the numbers.</p>"
    parts = [table, *sentences, *(_figure(figures[name], text) for name, text in ALT.items()), files]
    return _page(f"The safety mirage on MiniGuard, seed {seed}", intro, parts)


def _figure(figure, text: str) -> str:
    """A figure within the page itself."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{data}"><figcaption>{escape(text)}.</figcaption></figure>'


def _page(title: str, intro: str, parts: Sequence[str]) -> str:
    """A page of its own. parts: HTML."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; }} th, td {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ccc; }}
th:first-child, td:first-child {{ text-align: left; }}
img {{ max-width: 100%; }} figure {{ margin: 1.5rem 0; }} figcaption {{ color: #555; }}
</style></head><body>
<h1>{escape(title)}</h1>
<p>{escape(intro)}</p>
{"".join(parts)}
</body></html>
"""
