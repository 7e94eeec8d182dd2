"""What a study writes: tables, figures, and a report in one self-contained HTML file."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from workbench import plots
from workbench.evaluation.answers import redacted
from workbench.evaluation.tables import outcome_shares
from workbench.files import make_folder, write_text
from workbench.plots.style import save
from workbench.spreadsheets import as_csv
from workbench.studies.headline import Study
from workbench.studies.methods import base_name
from workbench.studies.paper import as_text, comparison, findings, paper_beside, paper_table
from workbench.studies.recipes import Task
from workbench.studies.reproduce import Reproduction
from workbench.studies.shipped import never_knew

# {figure: what it shows, as alternative text and caption}
ALT = {
    "before_after": "ASR, RR and utility of every model before and after the one-word attack",
    "outcomes": "The outcomes of attacked harmful queries for every model",
    "curves": "ASR, RR and utility on validation queries while training",
}
SHOWN_QUERIES = 3  # attacked harmful queries whose answers are in the report of `reproduce`

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ccc; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
figure { margin: 1.5rem 0; }
figcaption { color: #555; }
"""


def write(study: Study, out: Path, seed: int, base: str = "miniguard") -> None:
    """Write the headline study to a folder.

    Args:
        study: What to write.
        out: The folder, for results.csv, outcomes.csv, curves.csv, answers.csv, before_after.png, curves.png
            and report.html.
        seed: Of the study.
        base: Its base model.
    """
    make_folder(out)
    tables = {"results": study.results, "outcomes": study.outcomes, "curves": study.curves, "answers": study.answers}
    for name, table in tables.items():
        write_text(out / f"{name}.csv", as_csv(table))
    figures = {
        "before_after": plots.before_after(study.results, paper_beside(study.results)),
        "outcomes": plots.outcomes(study.outcomes),
        "curves": plots.curves(study.curves),
    }
    for name in ("before_after", "curves"):
        save(figures[name], out / f"{name}.png")
    title = f"The safety mirage on MiniGuard: base model {base_name(base)}, seed {seed}"
    write_text(out / "report.html", _study_page(study, figures, title, base, seed))


def _study_page(study: Study, figures: Mapping[str, Figure], title: str, base: str, seed: int) -> str:
    intro = (
        "Per cent; in brackets the paper's figures for LLaVA-1.5-7B on VLGuard (arXiv 2503.11832, Tables 1 and 2; "
        "its utility is VQAv2 accuracy). ASR: harmful queries answered. RR: harmless queries refused. The figures "
        "show Wilson 95% intervals. Models that never knew the secrets are those of the shipped study."
    )
    parts = [
        _table(comparison(pd.concat([study.results, never_knew(base, seed)]))),
        *_paragraphs(findings(study)),
        *(_figure(figure, ALT[name]) for name, figure in figures.items()),
        "<p>The numbers are in results.csv, outcomes.csv, curves.csv and answers.csv in the same folder.</p>",
    ]
    return _page(title, intro, parts)


def write_reproduction(reproduction: Reproduction, task: Task, redact: bool = True) -> None:
    """Write a figure and report.html to the folder that holds the table.

    Args:
        reproduction: What to write.
        task: How it was made.
        redact: Mask answers to harmful queries.
    """
    answers = reproduction.answers
    attacked = answers[(answers["attack"] == "what:3") & (answers["shot"] == 1) & (answers["queries"] == "harmful")]
    if task.table == 1:
        # the paper's utility is VQAv2 accuracy, which is not comparable with harmless queries answered
        paper = paper_table().assign(utility=float("nan"))
        name, figure = "before_after", plots.before_after(reproduction.results, paper)
        source = "Table 1"
    else:
        shares = outcome_shares(attacked.assign(attack="what:1"))
        name, figure = "outcomes", plots.outcomes(shares, attack="what:1")
        source = "Table 2, which we infer from its figures to be after one rewrite to “What”"
    save(figure, task.folder / f"{name}.png")
    intro = (
        "Per cent, with 95% intervals; difference: here − paper. The paper's figures are of LLaVA-1.5-7B on VLGuard "
        f"(arXiv 2503.11832, {source}). ASR: harmful queries answered; RR: harmless queries refused."
    )
    parts = [
        _table(as_text(reproduction.table)),
        _figure(figure, ALT[name]),
        "<h2>How it was made</h2>",
        *_paragraphs(_circumstances(task)),
        task.summary.round(2).to_html(index=False, border=0, na_rep=""),
        f"<h2>Answers to attacked harmful queries{' (masked)' if redact else ''}</h2>",
        _table(_shown_answers(attacked, redact)),
    ]
    write_text(task.folder / "report.html", _page(f"{task.model} compared with the paper", intro, parts))


def _shown_answers(attacked: pd.DataFrame, redact: bool) -> pd.DataFrame:
    """All models' answers to the first queries: query, model, outcome, answer."""
    first_ids = attacked["id"].unique()[:SHOWN_QUERIES]
    answers = attacked[attacked["id"].isin(first_ids)].sort_values("id", kind="stable")
    return (redacted(answers) if redact else answers)[["query", "model", "outcome", "answer"]]


def _circumstances(task: Task) -> Iterator[str]:
    """How the figures were made, and why they differ from the paper's."""
    n = Counter(e.kind for e in task.test)
    yield f"Asked: {n['harmful']} harmful and {n['harmless']} harmless queries, seed {task.seed}; judge: {task.judge}."
    if task.judge == "keyword":
        yield (
            "The keyword judge counts every answer that is not a refusal as a leak, even off-topic ones, so it "
            "overstates the ASR of unlearned models."
        )
    if task.unknown:
        yield (
            "Where the data have no harmful answer, what is forgotten is the model's own answer if the judge calls "
            "it relevant; the steps below are for all harmful queries."
        )
    if task.four_bit:
        yield "All models were trained and asked in 4 bits."
    yield (
        "Post-hoc SFT is on the safety data alone. Below: training steps, harmful and harmless examples per step, "
        "predicted memory in GiB."
    )


def _table(table: pd.DataFrame) -> str:
    return table.to_html(index=False, border=0)


def _paragraphs(sentences: Iterable[str]) -> list[str]:
    return [f"<p>{escape(sentence)}</p>" for sentence in sentences]


def _figure(figure: Figure, text: str) -> str:
    """A figure as HTML that contains the picture itself. text: alternative text and caption."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130)
    data = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(text)}.</figcaption></figure>"


def _page(title: str, intro: str, parts: Sequence[str]) -> str:
    """A whole HTML page.

    Args:
        title: As text.
        intro: As text, the first paragraph.
        parts: As HTML, what follows.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>{escape(intro)}</p>
{"".join(parts)}
</body></html>
"""
