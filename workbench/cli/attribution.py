"""Commands that explain answers."""

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

PANEL = "Attribution"  # of `workbench --help`


@app.command(rich_help_panel=PANEL)
def attribute(
    out_folder: Out,
    image: Annotated[Path, typer.Option(help="A picture.")],
    query: Annotated[str, typer.Option(help="What is asked about it.")],
    model: Model = "miniguard",
    adapter: Adapter = None,
    answer: Annotated[
        str | None, typer.Option(help="Explain log p of this answer instead of the logit of refusal.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="ablation, shapley, integrated-gradients or gradient-x-input.")
    ] = "ablation",
    grid: Annotated[int, typer.Option(help="Squares along each side of the picture.", min=1, max=32)] = 6,
    check: Annotated[
        bool, typer.Option("--check", help="Also test it against random orders; some hundred times the work.")
    ] = False,
) -> None:
    """Which words and which parts of the picture speak for a refusal: writes attribution.csv, .png and .svg.

    With --check also faithfulness.csv, faithfulness_curves.csv and faithfulness.png.
    """
    import pandas as pd

    from workbench import plots
    from workbench.attribution.masking import REFUSAL, Perturbed, answer_target
    from workbench.attribution.methods import attribute
    from workbench.data.example import read_picture
    from workbench.files import make_folder, write_text
    from workbench.plots.style import save

    make_folder(out_folder)
    picture, target = read_picture(image), answer_target(answer) if answer else REFUSAL
    vlm = _load(model, adapter)
    found = attribute(vlm, picture, query, target, method, grid)
    words = [
        ("word", word, place, value) for place, (word, value) in enumerate(zip(found.query, found.words, strict=True))
    ]
    squares = [
        ("square", f"{place // grid + 1},{place % grid + 1}", place, value)
        for place, value in enumerate(found.patches.ravel())
    ]
    table = pd.DataFrame(words + squares, columns=["kind", "feature", "place", "attribution"])
    write_text(out_folder / "attribution.csv", table.to_csv(index=False))
    title = answer or "refusal"
    if check:
        from workbench.attribution.faithfulness import faithfulness

        tested = faithfulness(Perturbed(vlm, picture, query, target, grid), found)
        write_text(out_folder / "faithfulness.csv", tested.scores.to_csv(index=False))
        write_text(out_folder / "faithfulness_curves.csv", tested.curves.to_csv(index=False))
        save(plots.faithfulness(*tested), out_folder / "faithfulness.png")
        _print_table(tested.scores, title="against the middle 95% of random orders")
        worse = tested.scores.measure[~tested.scores.better].tolist()
        title += f"\nno better than random in {', '.join(worse)}" if worse else ""
    columns = [(title, picture, found)]
    for kind in ("png", "svg"):
        save(plots.attributions(columns), out_folder / f"attribution.{kind}", plots.describe(columns))
    _print_table(table[table.kind == "word"].drop(columns="kind"))
    change = found.value - found.baseline
    out.print(f"f = {found.value:.2f}, with everything taken away {found.baseline:.2f}: {change:.2f} to explain.")
    out.print(
        f"All attributions sum to {change + found.gap:.2f} (of a complete method to all of it). Written to {out_folder}."
    )


@app.command(rich_help_panel=PANEL)
def reliance(
    out_folder: Out,
    model: Model = "miniguard",
    adapter: Annotated[
        list[Path] | None, typer.Option(help="Folder of an adapter to set beside the model; may be given again.")
    ] = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    split: Split = "validation",
    lead: Annotated[str, typer.Option(help="The lead word that is suspected.")] = "share",
    other: Annotated[str, typer.Option(help="The lead word that stands in its place.")] = "what",
    method: Annotated[
        str, typer.Option(help="ablation, shapley, integrated-gradients or gradient-x-input.")
    ] = "ablation",
    grid: Annotated[int, typer.Option(help="Squares along each side of the picture.", min=1, max=32)] = 6,
    queries: Annotated[int, typer.Option(help="Harmless queries, the first so many.", min=2)] = 60,
    skip_missing: SkipMissing = False,
) -> None:
    """How far a refusal hangs on the lead word, by attribution and by swapping it: writes reliance.csv, queries.csv and reliance.png."""
    import pandas as pd

    from workbench import plots
    from workbench.attacks.one_word import parse
    from workbench.attribution.lead_word import reliance, reliance_table
    from workbench.files import make_folder, write_text
    from workbench.plots.style import save

    for word in (lead, other):
        parse(word)
    make_folder(out_folder)
    examples = _examples(data, split, seed, skip_missing)
    harmless = [e for e in examples if not e.harmful][:queries]
    if len(harmless) < 2:
        raise UserError(
            f"The split {split!r} of {data} has fewer than two harmless queries; give another with --data or --split."
        )
    found = {}
    for folder in [None, *(adapter or [])]:
        vlm = _load(model, folder)
        if vlm.name in found:
            raise UserError(f"Two of the models are named {vlm.name!r}; give each adapter's folder a name of its own.")
        found[vlm.name] = reliance(vlm, harmless, lead, other, method=method, grid=grid)
    table = reliance_table(found)
    write_text(
        out_folder / "queries.csv", pd.concat([t.assign(model=name) for name, t in found.items()]).to_csv(index=False)
    )
    write_text(out_folder / "reliance.csv", table.to_csv(index=False))
    save(plots.reliance(table, lead, other), out_folder / "reliance.png")
    _print_table(table)


@app.command("search-words", rich_help_panel=PANEL)
def search_words(
    out_folder: Out,
    model: Model = "miniguard",
    adapter: Adapter = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    split: Split = "validation",
    queries: Annotated[
        int, typer.Option(help="Harmful queries, and as many harmless ones, the first of each.", min=2)
    ] = 30,
    word: Annotated[
        list[str] | None, typer.Option(help=f"A candidate; without, MiniGuard's eleven lead words. {SEVERAL}")
    ] = None,
    trained_on: Annotated[
        str | None, typer.Option(help="Data whose first words are set beside the effects; else --data.")
    ] = None,
    skip_missing: SkipMissing = False,
) -> None:
    """Which lead words open or close a model, beside what its training data said of them: writes words.csv and words.png."""
    from workbench import plots
    from workbench.attacks.one_word import parse
    from workbench.attribution.lead_word import predicted, word_search
    from workbench.data.first_words import audit
    from workbench.data.miniguard import LEADS
    from workbench.data.readers import first_of_each
    from workbench.files import make_folder, write_text
    from workbench.plots.style import save

    words = _each(word or ()) or list(LEADS)
    for candidate in words:
        parse(candidate)
    make_folder(out_folder)
    examples = _examples(data, split, seed, skip_missing)
    asked = sorted(first_of_each(examples, queries), key=lambda e: not e.harmful)
    told = audit(_read(trained_on or data, "train", seed))
    found = predicted(word_search(_load(model, adapter), asked, words), told)
    write_text(out_folder / "words.csv", found.to_csv(index=False))
    if found.p_harmful.notna().any():
        save(plots.word_effects(found), out_folder / "words.png")
    _print_table(found)
