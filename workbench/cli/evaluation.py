"""Commands that ask models and compare them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.app import (
    SEVERAL,
    Adapter,
    Data,
    Model,
    Out,
    Seed,
    SkipMissing,
    Split,
    _each,
    _examples,
    _load,
    _print_table,
    _read,
    app,
    out,
)
from workbench.errors import UserError

if TYPE_CHECKING:
    pass

PANEL = "Evaluation"  # of `workbench --help`


@app.command(rich_help_panel=PANEL)
def evaluate(
    out_folder: Out,
    model: Model = "miniguard",
    adapter: Adapter = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    split: Split = "test",
    attack: Annotated[
        list[str],
        typer.Option(
            help="none; WORD:K for K rewrites that begin with WORD, as in what:3; typo, paraphrase, prefill, noise or crop with :K; "
            f"FILE.json with prepared variants of the queries. {SEVERAL}"
        ),
    ] = ("none",),
    judge: Annotated[
        str,
        typer.Option(
            help="Who judges: exact (knows the right answer), keyword (refusal by words), or a model's folder or hub id."
        ),
    ] = "exact",
    skip_missing: SkipMissing = False,
) -> None:
    """Ask, attack, judge and count: writes answers.csv as answers come, results.csv, and where questions are of several kinds
    results_by_request.csv. The same command goes on after an interruption."""
    from workbench.attacks.kinds import prepare_attack
    from workbench.evaluation.evaluate import evaluate
    from workbench.evaluation.tables import rates_by_request
    from workbench.files import make_folder, write_text
    from workbench.intervals import detectable
    from workbench.judges.judge import load_judge

    examples = _examples(data, split, seed, skip_missing)
    names = _each(attack)
    for name in names:
        prepare_attack(name, examples)
    load_judge(judge, examples)  # before the model is loaded
    found = evaluate(_load(model, adapter), examples, names, judge, out=make_folder(out_folder))
    write_text(out_folder / "results.csv", found.results.to_csv(index=False))
    by_request = rates_by_request(found.answers, examples)
    if by_request.request.nunique() > 1:
        write_text(out_folder / "results_by_request.csv", by_request.to_csv(index=False))
    _print_table(found.results)
    for n in sorted(set(found.results.n)):
        low, middle = (100 * detectable(n, rate) for rate in (0.02, 0.5))
        out.print(
            f"n = {n} tells apart {middle:.0f} points around 50%, {low:.0f} above 2% (5% level, 80% power, two models)."
        )


@app.command(rich_help_panel=PANEL)
def vqa(
    questions: Annotated[
        Path, typer.Argument(help="VQAv2's questions, or a JSON list with image, question and ten answers each.")
    ],
    images: Annotated[Path, typer.Option(help="Folder of their pictures.")],
    out_folder: Out,
    annotations: Annotated[Path | None, typer.Option(help="VQAv2's annotations, which hold the answers.")] = None,
    model: Model = "miniguard",
    adapter: Adapter = None,
    first: Annotated[int | None, typer.Option(help="Ask the first so many questions; default: all.", min=1)] = None,
) -> None:
    """Utility on real pictures: VQA accuracy. Writes answers.csv as answers come, and vqa.csv; the same command goes on after a kill."""
    from workbench.evaluation.evaluate import evaluate
    from workbench.evaluation.vqa import read_questions, vqa_table
    from workbench.files import make_folder, write_text

    found = read_questions(questions, images, annotations)
    asked = found.examples[:first]
    answers = evaluate(_load(model, adapter), asked, judge="keyword", out=make_folder(out_folder)).answers
    table = vqa_table(answers, found)
    write_text(out_folder / "vqa.csv", table.to_csv(index=False))
    _print_table(table)


@app.command(rich_help_panel=PANEL)
def compare(
    first: Annotated[Path, typer.Argument(help="Folder that `workbench evaluate` wrote.")],
    second: Annotated[Path, typer.Argument(help="Another, of the same queries.")],
    file: Annotated[Path | None, typer.Option("--out", help="CSV file to write.")] = None,
) -> None:
    """Set two evaluations side by side, query by query: differences with intervals, and McNemar's exact test."""
    from workbench.evaluation.answers import read_answers
    from workbench.evaluation.compare import compare
    from workbench.files import write_text

    (one, judge), (other, its_judge) = read_answers(first), read_answers(second)
    if judge != its_judge:
        raise UserError(f"{first} was judged by {judge}, {second} by {its_judge}; evaluate both with the same --judge.")
    table = compare(one, other)
    if file:
        write_text(file, table.to_csv(index=False))
    _print_table(table, title=f"first: {first}, second: {second}")


@app.command("compare-judges", rich_help_panel=PANEL)
def compare_judges(
    folder: Annotated[Path, typer.Argument(help="Folder that `workbench evaluate` wrote.")],
    judge: Annotated[str, typer.Option(help="Another judge: exact, keyword, or a model's folder or hub id.")],
    out_folder: Out,
    data: Data = "miniguard",
    seed: Seed = 0,
    split: Split = "test",
) -> None:
    """How far another judge agrees about the same answers: Cohen's κ, and who says what. Writes agreement.csv, .png and confusion.csv."""
    from workbench import plots
    from workbench.evaluation.answers import read_answers
    from workbench.evaluation.compare import compare_judges
    from workbench.files import make_folder, write_text
    from workbench.judges.judge import judged
    from workbench.plots.style import save

    answers, first = read_answers(folder)
    if judge == first:
        raise UserError(f"{folder} was judged by {judge} already; give another --judge.")
    make_folder(out_folder)
    found = compare_judges(answers, judged(answers, _read(data, split, seed), judge))
    write_text(out_folder / "agreement.csv", found.kappa.to_csv(index=False))
    write_text(out_folder / "confusion.csv", found.confusion.to_csv(index=False))
    save(plots.agreement({Path(judge).name: found}, first), out_folder / "agreement.png")
    _print_table(found.confusion, title=f"first: {first}, second: {judge}")
    _print_table(found.kappa, title="Cohen's κ")
