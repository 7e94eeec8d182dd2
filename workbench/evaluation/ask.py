"""Ask a model, judge what it answers, count: answers and rates with intervals, as DataFrames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from workbench.attacks import kinds as attacks
from workbench.data.readers import Example, digest
from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS, Kept
from workbench.judges import rules as judges

if TYPE_CHECKING:
    import pandas as pd

    from workbench.models.vlm import VLM

RESULT_COLUMNS = ["model", "attack", "queries", "metric", "value", "ci_low", "ci_high", "n"]
# which outcome each metric counts, on harmful and on harmless queries
METRICS = {
    "harmful": {
        "asr": judges.RELEVANT,
        "rr": judges.REFUSAL,
        "irrelevant": judges.IRRELEVANT,
        "degenerate": judges.DEGENERATE,
    },
    "harmless": {
        "utility": judges.RELEVANT,
        "rr": judges.REFUSAL,
        "irrelevant": judges.IRRELEVANT,
        "degenerate": judges.DEGENERATE,
    },
}


class Evaluation(NamedTuple):
    """results: one row per rate (RESULT_COLUMNS). answers: one row per query asked (ANSWER_COLUMNS)."""

    results: pd.DataFrame
    answers: pd.DataFrame


def evaluate(
    vlm: VLM,
    examples: Sequence[Example],
    attack: str | Sequence[str] = "none",
    judge: str = "exact",
    batch_size: int = 100,
    out: str | Path | None = None,
) -> Evaluation:
    """Ask every example's query under each attack, judge the answers, and count.

    attack: "none", "WORD:K" as in "what:3", another of attacks.py, or several. judge: of judges.py. Rates in [0, 1] have
    95% intervals (`intervals.of_rate`); of an attack's K shots the outcome that serves the attacker best counts, and n counts queries.
    out: a folder for answers.csv, written as answers come; an evaluation that was interrupted goes on from it.
    Raises UserError for an unknown attack or judge, or where `out` holds answers to other queries.
    """
    names = [attack] if isinstance(attack, str) else list(attack)
    answers = ask(vlm, examples, names, judge, batch_size, file=Path(out) / "answers.csv" if out else None)
    return Evaluation(rates(answers), answers)


def ask(
    vlm: VLM,
    examples: Sequence[Example],
    names: Sequence[str],
    judge: str,
    batch_size: int = 100,
    progress: bool = True,
    file: Path | None = None,
) -> pd.DataFrame:
    """Every answer with its outcome under each of the attacks, one row a shot: ANSWER_COLUMNS.

    Of several processes every one asks its share, and each returns the whole. file: what it holds already is not asked again, only judged;
    each batch is added to it as it comes. Raises UserError where two examples have one id, or the file holds answers to other queries.
    """
    import pandas as pd
    from accelerate.utils import gather_object

    from workbench.models.vlm import processes
    from workbench.runs import bar

    if not names:
        raise UserError("There is no attack to ask under; give none, or one such as what:3.")
    verdict = judges.judge(judge, examples)  # before anything is asked
    known = _by_id(examples)
    tried = {name: attacks.attack(name, examples) for name in names}
    kept = Kept(file, vlm, known, tried)
    rows = []
    if kept.rows and processes().is_main_process:  # another judge may have been asked then
        outcomes = verdict([known[row[0]] for row in kept.rows], [row[6] for row in kept.rows])
        rows = [(*row[:7], outcome, row[8]) for row, outcome in zip(kept.rows, outcomes, strict=True)]
    with processes().split_between_processes(list(examples)) as mine:
        # the same pictures come for every shot of every attack, one after the other: the model then knows them already
        chunks = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
        work = [(name, shot, chunk) for chunk in chunks for name in tried for shot in range(1, tried[name].shots + 1)]
        for name, shot, chunk in bar(work, f"asking {vlm.name}", progress):
            asked = [(e, tried[name].of(e, shot)) for e in chunk if (e.id, name, shot) not in kept.done]
            asked = [(e, s) for e, s in asked if s]  # a prepared file may have fewer for one
            if not asked:
                continue
            pictures = [e.picture() for e, _ in asked]
            shown = [s.picture() if s.picture else picture for (_, s), picture in zip(asked, pictures, strict=True)]
            texts = vlm.answers(shown, [s.query for _, s in asked], batch_size=batch_size, opening=asked[0][1].opening)
            outcomes = verdict([e for e, _ in asked], texts)
            rows += kept.add(
                (e.id, vlm.name, name, shot, e.kind, s.query, text, outcome, digest(picture))
                for (e, s), picture, text, outcome in zip(asked, pictures, texts, outcomes, strict=True)
            )
    rows = gather_object(rows)
    order = {key: place for place, key in enumerate((n, s, e.id) for n in tried for s in range(1, tried[n].shots + 1) for e in examples)}
    table = pd.DataFrame(sorted(rows, key=lambda row: order[row[2], row[3], row[0]]), columns=ANSWER_COLUMNS)
    kept.finish(table, judge)
    return table


def _by_id(examples: Sequence[Example]) -> dict[str, Example]:
    """Raises UserError where two have one id."""
    known: dict[str, Example] = {}
    for example in examples:
        other = known.setdefault(example.id, example)
        if other is not example:
            twice = "the same query twice" if other.query == example.query else "different queries"
            raise UserError(f"The data have {twice} under the id {example.id!r}; give each query an id of its own.")
    return known


def outcomes(answers: pd.DataFrame) -> pd.DataFrame:
    """One row per query and attack, K shots taken together: model, attack, queries, id, picture, outcome."""
    keys = ["model", "attack", "queries", "id", "picture"]
    together = answers.groupby(keys, sort=False)["outcome"].agg(list).reset_index()
    together["outcome"] = [judges.worst(o, q == "harmful") for o, q in zip(together.outcome, together.queries, strict=True)]
    return together


def rates(answers: pd.DataFrame) -> pd.DataFrame:
    """Rates in [0, 1] with 95% intervals (`intervals.of_rate`): RESULT_COLUMNS, in the order in which models and attacks were asked."""
    import pandas as pd

    groups = outcomes(answers).groupby(["model", "attack", "queries"], sort=False)
    return pd.DataFrame([(*keys, *rate) for keys, group in groups for rate in _rates(keys[2], group)], columns=RESULT_COLUMNS)


def rates_by_request(answers: pd.DataFrame, examples: Iterable[Example]) -> pd.DataFrame:
    """`rates` apart for each kind of question (`Example.request`: colour, name, recipe …), so that damage is seen where it is:
    RESULT_COLUMNS with `request` behind queries."""
    import pandas as pd

    requests = {e.id: e.request for e in examples}
    together = outcomes(answers)
    groups = together.assign(request=together.id.map(requests)).groupby(["model", "attack", "queries", "request"], sort=False)
    columns = [*RESULT_COLUMNS[:3], "request", *RESULT_COLUMNS[3:]]
    return pd.DataFrame([(*keys, *rate) for keys, group in groups for rate in _rates(keys[2], group)], columns=columns)


def _rates(queries: str, group: pd.DataFrame) -> Iterator[tuple]:
    """(metric, value, ci_low, ci_high, n) of each metric."""
    from workbench.intervals import of_rate

    for metric, outcome in _metrics(queries, group.outcome).items():
        counted = group.outcome == outcome
        yield metric, counted.mean(), *of_rate(counted, group.picture), len(group)


def _metrics(queries: str, *outcomes: pd.Series) -> dict[str, str]:
    """METRICS, and verdicts that could not be read where there are any."""
    unread = any((each == judges.UNPARSED).any() for each in outcomes)
    return METRICS[queries] | ({judges.UNPARSED: judges.UNPARSED} if unread else {})


def compare(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Two models on the same queries, a row each rate: attack, queries, metric, first, second and difference (rates in [0, 1]), ci_low and
    ci_high of the difference (95%, bootstrapped over pictures), only_first, only_second (queries), p (McNemar's exact test,
    which takes all queries for independent), n.

    first, second: answers of one model each. What only one of them was asked is left out.
    Raises UserError where that is everything, or where the same id and attack stand for different queries or pictures.
    """
    import pandas as pd
    from statsmodels.stats.contingency_tables import mcnemar

    from workbench.intervals import cluster_bootstrap, wilson

    keys = ["attack", "queries", "id", "picture"]
    shots = [table.assign(shown=table["query"] + table.picture).groupby(keys[:3])["shown"].agg(tuple) for table in (first, second)]
    asked = [set(each.items()) for each in shots]
    differing = {key for key, _ in asked[0] ^ asked[1]} & dict(asked[0]).keys() & dict(asked[1]).keys()
    if differing:
        attack, _, name = min(differing)
        what = f"different queries, or about different pictures, as {name!r}"
        raise UserError(f"Under {attack!r} the two models were asked {what}; evaluate both on the same data.")
    both = outcomes(first).merge(outcomes(second), on=keys, suffixes=("_first", "_second"))
    if both.empty:
        raise UserError("The two models have not been asked one query in common; evaluate both on the same data, under the same attacks.")
    rows = []
    for (attack, queries), group in both.groupby(keys[:2], sort=False):
        for metric, outcome in _metrics(queries, group.outcome_first, group.outcome_second).items():
            one, other = (group[f"outcome_{which}"].eq(outcome) for which in ("first", "second"))
            only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
            p = mcnemar([[0, only_first], [only_second, 0]], exact=True).pvalue
            difference = other.astype(int) - one.astype(int)
            interval = cluster_bootstrap(difference, group.picture)
            if not difference.any():  # a bootstrap would be sure that they never differ
                most = wilson(0, group.picture.nunique())[1]
                interval = (-most, most)
            rows.append(
                (attack, queries, metric, one.mean(), other.mean(), difference.mean(), *interval, only_first, only_second, p, len(group))
            )
    columns = ["first", "second", "difference", "ci_low", "ci_high", "only_first", "only_second", "p", "n"]
    return pd.DataFrame(rows, columns=["attack", "queries", "metric", *columns])


def outcome_shares(answers: pd.DataFrame) -> pd.DataFrame:
    """How often each of the four outcomes came: model, attack, queries, outcome, count, share in [0, 1], n."""
    import pandas as pd

    rows = []
    for keys, group in outcomes(answers).groupby(["model", "attack", "queries"], sort=False):
        counts = group.outcome.value_counts()
        seen = (*judges.OUTCOMES, *([judges.UNPARSED] if judges.UNPARSED in counts else []))
        rows += [(*keys, o, int(counts.get(o, 0)), counts.get(o, 0) / len(group), len(group)) for o in seen]
    return pd.DataFrame(rows, columns=["model", "attack", "queries", "outcome", "count", "share", "n"])
