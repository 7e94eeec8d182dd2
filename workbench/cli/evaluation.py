"""Commands that ask models and compare them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from workbench.attacks.kinds import attack_help
from workbench.cli.app import (
    SEVERAL,
    Adapter,
    Data,
    Judge,
    JudgeInstructions,
    MaxNewTokens,
    Model,
    Out,
    RefusalWords,
    Samples,
    Seed,
    SkipInvalid,
    SkipMissing,
    Split,
    SystemPrompt,
    Taught,
    Temperature,
    app,
    judge_of,
    load_data,
    load_model,
    out,
    print_table,
    read_data,
    split_commas,
    taught_model,
    write_results,
)
from workbench.errors import UserError

PANEL = "Evaluation"  # of `workbench --help`
FORMS = " ".join(f"{form}: {text}" for form, text in attack_help().items())
AttackOption = Annotated[list[str], typer.Option(help=f"{FORMS} K is a number of shots, as in what:3. {SEVERAL}")]


@app.command(rich_help_panel=PANEL)
def evaluate(
    out_folder: Out,
    model: Model = "miniguard",
    taught: Taught = None,
    adapter: Adapter = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    split: Split = "test",
    attack: AttackOption = ["none"],  # noqa: B006 (typer copies it)
    judge: Judge = "exact",
    refusal_words: RefusalWords = None,
    judge_instructions: JudgeInstructions = None,
    skip_missing: SkipMissing = False,
    skip_invalid: SkipInvalid = False,
    max_new_tokens: MaxNewTokens = None,
    system_prompt: SystemPrompt = "",
    temperature: Temperature = 0.0,
    samples: Samples = 1,
) -> None:
    """Ask, attack, judge and count.

    Writes answers.csv as answers come, results.csv, and results_by_request.csv if questions are of several
    kinds. Run the same command again to resume.
    """
    from workbench.attacks.kinds import prepare_attack
    from workbench.evaluation.evaluate import evaluate
    from workbench.evaluation.tables import rates_by_request
    from workbench.files import make_folder
    from workbench.intervals import detectable, detectable_in_pairs
    from workbench.judges.judge import check_judge
    from workbench.models.generation import Generation

    generation = Generation(max_new_tokens, system_prompt, temperature, samples, seed)
    model = taught_model(model, taught)
    examples, left_out = load_data(data, split, seed, model, skip_missing, skip_invalid)
    attacks = split_commas(attack)
    for name in attacks:
        prepare_attack(name, examples, left_out)
    judge = judge_of(judge, refusal_words, judge_instructions)
    check_judge(judge, examples)  # before the model is loaded
    vlm = load_model(model, adapter, generation=generation)
    evaluation = evaluate(vlm, examples, attacks, judge, out=make_folder(out_folder), left_out=left_out)
    write_results(out_folder, {"results": evaluation.results})
    by_request = rates_by_request(evaluation.answers, examples)
    if by_request.request.nunique() > 1:
        write_results(out_folder, {"results_by_request": by_request})
    print_table(evaluation.results)
    for n in sorted(set(evaluation.results.n)):
        low, middle = (100 * detectable(n, rate) for rate in (0.02, 0.5))
        out.print(
            f"n = {n} can detect a difference of {middle:.0f} points around 50%, {low:.0f} above 2% "
            "(5% level, 80% power, two models)."
        )
        pairs = 100 * detectable_in_pairs(n, 0.2)
        if not math.isnan(pairs):
            out.print(f"If both are asked these queries, and differ on a fifth of them: {pairs:.0f} points.")


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
    first: Annotated[int | None, typer.Option(help="Ask only the first N questions; default: all.", min=1)] = None,
) -> None:
    """Utility on real pictures: VQA accuracy. Writes answers.csv as answers come, and vqa.csv.

    Run the same command again to resume.
    """
    from workbench.evaluation.ask import ask
    from workbench.evaluation.vqa import read_questions, vqa_table
    from workbench.files import make_folder

    asked = read_questions(questions, images, annotations)
    file = make_folder(out_folder) / "answers.csv"
    table = vqa_table(ask(load_model(model, adapter), asked.examples[:first], ["none"], file=file), asked)
    write_results(out_folder, {"vqa": table})
    print_table(table)


@app.command(rich_help_panel=PANEL)
def compare(
    first: Annotated[Path, typer.Argument(help="Folder that `workbench evaluate` wrote.")],
    second: Annotated[Path, typer.Argument(help="Another, of the same queries.")],
    file: Annotated[Path | None, typer.Option("--out", help="CSV file to write.")] = None,
) -> None:
    """Compare two evaluations query by query: differences with intervals, and McNemar's exact test."""
    from workbench.evaluation.answers import read_answers
    from workbench.evaluation.compare import compare
    from workbench.files import write_text
    from workbench.spreadsheets import as_csv

    (first_answers, judge), (second_answers, other_judge) = read_answers(first), read_answers(second)
    if judge != other_judge:
        raise UserError(
            f"{first} was judged by {judge}, {second} by {other_judge}; evaluate both with the same --judge."
        )
    table = compare(first_answers, second_answers)
    if file:
        write_text(file, as_csv(table))
    print_table(table, title=f"first: {first}, second: {second}")


@app.command("compare-judges", rich_help_panel=PANEL)
def compare_judges(
    folder: Annotated[Path, typer.Argument(help="Folder that `workbench evaluate` wrote.")],
    judge: Judge,
    out_folder: Out,
    data: Data = "miniguard",
    seed: Seed = 0,
    split: Split = "test",
) -> None:
    """How far another judge agrees about the same answers: Cohen's κ, and who says what.

    Writes agreement.csv, agreement.png and confusion.csv.
    """
    from workbench import plots
    from workbench.evaluation.answers import read_answers
    from workbench.evaluation.compare import compare_judges
    from workbench.files import make_folder
    from workbench.judges.judge import judged

    answers, first = read_answers(folder)
    if judge == first:
        raise UserError(f"{folder} was judged by {judge} already; choose another --judge.")
    make_folder(out_folder)
    agreement = compare_judges(answers, judged(answers, read_data(data, split, seed, skip_invalid=True), judge))
    figure = plots.agreement({Path(judge).name: agreement}, first)
    write_results(out_folder, {"agreement": agreement.kappa, "confusion": agreement.confusion}, {"agreement": figure})
    print_table(agreement.confusion, title=f"first: {first}, second: {judge}")
    print_table(agreement.kappa, title="Cohen's κ")
