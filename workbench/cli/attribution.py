"""Commands that explain answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.attribution.baselines import NAMES, RESAMPLED
from workbench.attribution.methods import METHODS
from workbench.cli.app import (
    SEVERAL,
    Adapter,
    Data,
    Model,
    Out,
    Seed,
    SkipInvalid,
    SkipMissing,
    Split,
    Taught,
    app,
    load_examples,
    load_model,
    out,
    print_table,
    read_data,
    split_commas,
    taught_model,
    write_results,
)
from workbench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from workbench.attribution.masking import Perturbed
    from workbench.attribution.methods import Attribution

PANEL = "Attribution"  # of `workbench --help`
Method = Annotated[str, typer.Option(help=f"Attribution method: {', '.join(METHODS)}.")]
Baseline = Annotated[str, typer.Option(help=f"What stands in place of a missing word: {', '.join(NAMES)}.")]
Grid = Annotated[int, typer.Option(help="Squares along each side of the picture.", min=1, max=32)]


@app.command(rich_help_panel=PANEL)
def attribute(
    out_folder: Out,
    image: Annotated[Path, typer.Option(help="A picture.")],
    query: Annotated[str, typer.Option(help="What is asked about it.")],
    model: Model = "miniguard",
    taught: Taught = None,
    adapter: Adapter = None,
    answer: Annotated[
        str | None, typer.Option(help="Explain log p of this answer instead of the log-odds of refusal.")
    ] = None,
    method: Method = "ablation",
    grid: Grid = 6,
    baseline: Baseline = "unknown",
    against: Annotated[
        list[str] | None,
        typer.Option(help="A query whose words stand in, word for word, instead of --baseline; may be repeated."),
    ] = None,
    data: Annotated[str, typer.Option(help="The data whose words stand in with --baseline resampled.")] = "miniguard",
    check: Annotated[
        bool, typer.Option("--check", help="Also test it against random orders; some hundred times the work.")
    ] = False,
) -> None:
    """Which words and which parts of the picture speak for a refusal: writes attribution.csv, .png and .svg.

    With --check also faithfulness.csv, faithfulness_curves.csv and faithfulness.png.
    """
    from workbench import plots
    from workbench.attribution.baselines import baseline_of
    from workbench.attribution.masking import Perturbed
    from workbench.attribution.methods import attribute
    from workbench.attribution.target import REFUSAL, answer_target
    from workbench.data.pictures import read_picture
    from workbench.files import make_folder

    make_folder(out_folder)
    picture, target = read_picture(image), answer_target(answer) if answer else REFUSAL
    vlm = load_model(taught_model(model, taught), adapter)
    pool = [e.query for e in read_data(data, "train", 0, model)] if baseline == RESAMPLED else []
    instead = against or baseline_of(baseline, vlm, query, pool)
    attribution = attribute(vlm, picture, query, target, method, grid, baseline=instead)
    table = _features(attribution, grid)
    write_results(out_folder, {"attribution": table})
    title = answer or "refusal"
    if check:
        perturbed = Perturbed(vlm, picture, query, target, grid, instead)
        worse = _check_faithfulness(perturbed, attribution, out_folder)
        title += f"\nno better than random in {', '.join(worse)}" if worse else ""
    columns = [(title, picture, attribution)]
    for kind in ("png", "svg"):
        plots.save(plots.attributions(columns), out_folder / f"attribution.{kind}", plots.describe(columns))
    print_table(table[table.kind == "word"].drop(columns="kind"))
    change = attribution.value - attribution.baseline
    out.print(
        f"f = {attribution.value:.2f}, with everything removed {attribution.baseline:.2f}: {change:.2f} to explain."
    )
    out.print(
        f"All attributions sum to {change + attribution.gap:.2f} (those of a complete method to all of it). "
        f"Written to {out_folder}."
    )


def _features(attribution: Attribution, grid: int) -> pd.DataFrame:
    """One row per word and square: kind, feature, place, attribution, and error if there is chance in it."""
    import pandas as pd

    rows = [
        ("word", *row) for row in zip(attribution.query, range(len(attribution.words)), attribution.words, strict=True)
    ]
    for place, value in enumerate(attribution.patches.ravel()):
        rows.append(("square", f"{place // grid + 1},{place % grid + 1}", place, value))
    table = pd.DataFrame(rows, columns=["kind", "feature", "place", "attribution"])
    return table if attribution.errors is None else table.assign(error=attribution.errors)


def _check_faithfulness(perturbed: Perturbed, attribution: Attribution, folder: Path) -> list[str]:
    """Test an attribution against random orders; returns the measures in which it is no better."""
    from workbench import plots
    from workbench.attribution.faithfulness import faithfulness

    tested = faithfulness(perturbed, attribution)
    tables = {"faithfulness": tested.scores, "faithfulness_curves": tested.curves}
    write_results(folder, tables, {"faithfulness": plots.faithfulness(*tested)})
    print_table(tested.scores, title="compared with the middle 95% of random orders")
    return tested.scores.measure[~tested.scores.better].tolist()


@app.command(rich_help_panel=PANEL)
def reliance(
    out_folder: Out,
    model: Model = "miniguard",
    taught: Taught = None,
    adapter: Annotated[
        list[Path] | None, typer.Option(help="Folder of an adapter to compare with the model; may be repeated.")
    ] = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    split: Split = "validation",
    lead: Annotated[str, typer.Option(help="The lead word that is suspected.")] = "share",
    other: Annotated[str, typer.Option(help="The lead word that replaces it.")] = "what",
    method: Method = "ablation",
    grid: Grid = 6,
    baseline: Baseline = "unknown",
    queries: Annotated[int, typer.Option(help="Use the first N harmless queries.", min=2)] = 60,
    skip_missing: SkipMissing = False,
    skip_invalid: SkipInvalid = False,
) -> None:
    """How much a refusal depends on the lead word, by attribution and by swapping it.

    Writes reliance.csv, queries.csv and reliance.png.
    """
    import pandas as pd

    from workbench import plots
    from workbench.attacks.one_word import parse
    from workbench.attribution.lead_word import reliance, reliance_table
    from workbench.files import make_folder

    for word in (lead, other):
        parse(word)
    make_folder(out_folder)
    model = taught_model(model, taught)
    harmless = [e for e in load_examples(data, split, seed, model, skip_missing, skip_invalid) if not e.harmful][
        :queries
    ]
    if len(harmless) < 2:
        raise UserError(
            f"The split {split!r} of {data} has fewer than two harmless queries; choose another --data or --split."
        )
    by_model = {}
    for folder in [None, *(adapter or [])]:
        vlm = load_model(model, folder)
        if vlm.name in by_model:
            raise UserError(f"Two of the models are named {vlm.name!r}; give each adapter's folder a name of its own.")
        by_model[vlm.name] = reliance(vlm, harmless, lead, other, method=method, grid=grid, baseline=baseline)
    table = reliance_table(by_model)
    by_query = pd.concat([rows.assign(model=name) for name, rows in by_model.items()])
    figures = {"reliance": plots.reliance(table, lead, other)}
    write_results(out_folder, {"queries": by_query, "reliance": table}, figures)
    print_table(table)


@app.command("search-words", rich_help_panel=PANEL)
def search_words(
    out_folder: Out,
    model: Model = "miniguard",
    taught: Taught = None,
    adapter: Adapter = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    split: Split = "validation",
    queries: Annotated[
        int, typer.Option(help="How many harmful and how many harmless queries to use (the first N of each).", min=2)
    ] = 30,
    word: Annotated[
        list[str] | None, typer.Option(help=f"A candidate; by default MiniGuard's eleven lead words. {SEVERAL}")
    ] = None,
    trained_on: Annotated[
        str | None, typer.Option(help="Data whose first words are compared with the effects; default: --data.")
    ] = None,
    skip_missing: SkipMissing = False,
    skip_invalid: SkipInvalid = False,
) -> None:
    """Which lead words open or close a model, and what its training data said of them.

    Writes words.csv and words.png.
    """
    from workbench import plots
    from workbench.attacks.one_word import parse
    from workbench.attribution.lead_word import predicted, word_search
    from workbench.data.first_words import audit
    from workbench.data.miniguard import LEADS
    from workbench.data.readers import first_of_each
    from workbench.files import make_folder

    words = split_commas(word or ()) or list(LEADS)
    for candidate in words:
        parse(candidate)
    make_folder(out_folder)
    model = taught_model(model, taught)
    examples = first_of_each(load_examples(data, split, seed, model, skip_missing, skip_invalid), queries)
    harmful_first = sorted(examples, key=lambda e: not e.harmful)
    statistics = audit(read_data(trained_on or data, "train", seed, model, skip_invalid))
    effects = predicted(word_search(load_model(model, adapter), harmful_first, words), statistics)
    figures = {"words": plots.word_effects(effects)} if effects.p_harmful.notna().any() else {}
    write_results(out_folder, {"words": effects}, figures)
    print_table(effects)
