"""Options: values as they were written, or one sentence that names the option, before any work starts."""

import contextlib
import io
import json
import math
import re
import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.cases import assert_found, assert_one_sentence, cases
from workbench.attacks.kinds import KINDS, prepare_attack
from workbench.attacks.one_word import MAX_SHOTS, parse, rewrites
from workbench.cli import main
from workbench.cli.app import memory_bytes, name_and_number, seed_numbers, split_commas, whole_numbers
from workbench.data.example import Example
from workbench.data.first_words import audit, first_word
from workbench.errors import UserError
from workbench.models.generation import Generation
from workbench.training.objectives import OBJECTIVES
from workbench.training.settings import Settings

LARGEST = 2**32 - 1
ODD = [
    "",
    " ",
    ",",
    "-1",
    "+1",
    "1.5",
    "1e3",
    "0x10",
    "²",
    "٣",
    "1_0",
    "nan",
    "inf",
    "-inf",
    "9" * 5000,
    "None",
    "a=b",
    "\0",
]
WORD = st.text(max_size=8) | st.sampled_from(ODD) | st.integers(-5, 2**33).map(str)


def either(read, *arguments):
    """What a parser gives, or None after one sentence."""
    try:
        return read(*arguments)
    except UserError as error:
        assert_one_sentence(str(error).replace("\n", ""))
        return None


def reads_numbers(read, texts):
    """The property: whole numbers as they are, each once and in order; anything else is refused."""
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    digits = [part for part in parts if re.fullmatch(r"\d{1,10}", part)]
    numbers = [int(part) for part in digits]
    expected = list(dict.fromkeys(numbers)) if parts and len(digits) == len(parts) and max(numbers) <= LARGEST else None
    assert either(read, texts) == expected


LISTS = st.lists(WORD | st.lists(st.integers(0, 9).map(str), min_size=1, max_size=4).map(", ".join), max_size=4)


@cases(LISTS)
def test_whole_numbers_are_read_or_refused(case):
    reads_numbers(seed_numbers, case)
    reads_numbers(partial(whole_numbers, option="--counts", example="0,5"), case)


def test_a_parser_that_skips_what_it_cannot_read_is_found():
    planted = lambda texts: [int(part) for part in split_commas(texts) if part.isdigit()] or None  # noqa: E731
    assert_found(partial(reads_numbers, planted), LISTS)


PAIRS = st.tuples(
    st.sampled_from(["beta", "", " c ", "layer"]), st.sampled_from(["=", "", "=="]), st.floats().map(str) | WORD
)


def reads_pairs(read, case):
    """The property: a name and a finite number, or a refusal."""
    text = "".join(case)
    name, separator, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    good = separator and name.strip() and math.isfinite(number)
    assert either(read, text) == ((name.strip(), number) if good else None)


@cases(PAIRS)
def test_a_pair_is_a_name_and_a_finite_number(case):
    reads_pairs(name_and_number, case)


def test_a_parser_that_admits_nan_is_found():
    def planted(text):
        name, _, value = text.partition("=")
        with contextlib.suppress(ValueError):
            return name.strip(), float(value)
        raise UserError("No number.")

    assert_found(partial(reads_pairs, planted), PAIRS)


SIZES = st.tuples(st.floats(0, 1e9) | st.integers(0, 10**6), st.sampled_from(["", "GiB", " gb", "GB", "gib"]))


def reads_sizes(read, case):
    """The property: the bytes of the size, to one in a million."""
    number, unit = case
    text = f"{number:.3f}{unit}" if isinstance(number, float) else f"{number}{unit}"
    expected = float(text.split("g")[0].split("G")[0]) * (10**9 if "gb" in unit.lower() else 2**30)
    assert either(read, text) == (pytest.approx(expected, rel=1e-6) if expected >= 1 else None)


@cases(SIZES)
def test_a_size_is_its_bytes(case):
    reads_sizes(memory_bytes, case)


def test_a_parser_that_takes_gb_for_gib_is_found():
    assert_found(partial(reads_sizes, lambda text: memory_bytes(text.lower().replace("gb", "gib"))), SIZES)


@cases(WORD | st.tuples(WORD, st.sampled_from(["GiB", "GB", "TB"])).map("".join))
def test_any_size_is_positive_or_refused(case):
    size = either(memory_bytes, case)
    assert size is None or size >= 1


ATTACKS = st.tuples(
    WORD | st.sampled_from([*KINDS, "what", "don't", "none", "swap", "Ünder"]), st.sampled_from(["", ":"]), WORD
)
QUERY = st.lists(st.text("abcdefgh'", min_size=1, max_size=7), min_size=1, max_size=6).map(" ".join)


def _known(word):
    return re.fullmatch(r"[^\W\d_][\w'-]*", word)


def has_the_shots_it_is_asked_for(prepare, case):
    """The property: WORD:K has K shots, each with a query and a picture of the same size; else it is refused."""
    (word, colon, shots), query, side = case
    name = f"{word}{colon}{shots}"
    kind, _, number = name.partition(":")
    number = number or "1"
    examples = [
        Example(str(n), Image.new("RGB", (side, 40)), query, harmful, "") for n, harmful in enumerate((True, False))
    ]
    attack = either(prepare, name, examples)
    good = _known(kind) and re.fullmatch(r"\d{1,3}", number) and 1 <= int(number) <= MAX_SHOTS
    assert (attack is not None) == bool(good), name
    if attack:
        assert attack.shots == int(number) or name == "none"
        for example in examples:
            for shot in filter(None, (attack.of(example, number) for number in range(1, attack.shots + 1))):
                assert shot.query.strip()
                if shot.picture:
                    seen = shot.picture(example.picture())
                    assert (seen.mode, seen.size) == ("RGB", (side, 40))


RIGHT = st.tuples(st.sampled_from([*KINDS, "swap"]), st.just(":"), st.integers(1, MAX_SHOTS).map(str))
NAMED = st.tuples(RIGHT | ATTACKS, QUERY, st.integers(1, 40))


@cases(NAMED, share=2)
def test_an_attack_has_its_shots_or_is_refused(case):
    has_the_shots_it_is_asked_for(prepare_attack, case)


def test_an_attack_that_has_a_shot_too_few_is_found():
    def planted(name, examples):
        attack = prepare_attack(name, examples)
        return attack._replace(shots=max(1, attack.shots - 1))

    assert_found(partial(has_the_shots_it_is_asked_for, planted), NAMED)


WORDS = st.from_regex(r"[a-z][a-z'-]{0,8}", fullmatch=True).filter(
    lambda word: first_word(word) == word and word != "none"
)
REWORDED = st.tuples(WORDS, st.integers(1, MAX_SHOTS), QUERY)


def begins_with_the_word(rewrite, case):
    """The property: K different rewrites that begin with the word and keep the query's last word."""
    word, shots, query = case
    rewritten = rewrite(query, f"{word}:{shots}")
    assert len(set(rewritten)) == len(rewritten) == shots
    assert all(first_word(each) == word for each in rewritten)
    assert all(query.split()[-1] in each for each in rewritten)


@cases(REWORDED)
def test_rewrites_begin_with_the_word(case):
    begins_with_the_word(rewrites, case)


def test_a_rewrite_that_loses_the_query_is_found():
    assert_found(
        partial(begins_with_the_word, lambda query, name: [*rewrites(query, name)[:-1], parse(name)[0]]), REWORDED
    )


NUMBERS = st.sampled_from([math.nan, math.inf, -math.inf, -1, 0, 0.5, 1, 2, 2.5, 1e300, 10**40])
FEW_NUMBERS = st.sampled_from([math.nan, 0.5, 2, 2.5])
SETTINGS = st.tuples(
    st.just("rmu"), st.dictionaries(st.sampled_from(["layer", "c"]), FEW_NUMBERS, min_size=1, max_size=1), st.just({})
) | st.tuples(
    st.sampled_from([*OBJECTIVES, "", "adam"]),
    st.dictionaries(st.sampled_from(["lr", "beta", "alpha", "gamma", "layer", "c", "other"]), NUMBERS, max_size=3),
    st.dictionaries(
        st.sampled_from(["steps", "forget", "retain", "accumulate", "rank"]), st.integers(-1, 20), max_size=3
    ),
)


def keeps_what_is_given(settings, case):
    """The property: settings hold the numbers that were given, all of them finite and sensible, or are refused."""
    objective, numbers, counts = case
    made = either(partial(settings, objective, **numbers, **counts))
    if objective not in OBJECTIVES:
        assert made is None
        return
    hyper = OBJECTIVES[objective].hyper
    known = all(name == "lr" or name in hyper for name in numbers)
    whole = all(value == int(value) for name, value in numbers.items() if name == "layer" and math.isfinite(value))
    positive = numbers.get("beta", 1) > 0 and numbers.get("lr", 0) >= 0 and min(counts.values(), default=1) > 0
    if not (known and whole and positive and all(map(math.isfinite, numbers.values()))):
        assert made is None
    elif made is None:
        sizes = {"forget": OBJECTIVES[objective].forget, "retain": OBJECTIVES[objective].retain} | counts
        assert any(sizes[name] % sizes.get("accumulate", 1) for name in ("forget", "retain"))
    else:
        assert all(made.keywords[name] == value for name, value in (numbers | counts).items())


@cases(SETTINGS, share=2)
def test_settings_are_what_was_given_or_refused(case):
    keeps_what_is_given(Settings.of, case)


@pytest.mark.parametrize(
    "planted",
    [
        lambda objective, **given: Settings.of(objective, **{k: v for k, v in given.items() if v == v}),
        lambda objective, **given: Settings.of(
            objective, **{k: int(v) if k == "layer" else v for k, v in given.items()}
        ),
    ],
    ids=["drops nan", "cuts layers to whole ones"],
)
def test_an_error_planted_in_settings_is_found(planted):
    def without_other_errors(*arguments, **given):
        with contextlib.suppress(OverflowError, ValueError):
            return planted(*arguments, **given)
        raise UserError("No number.")

    assert_found(partial(keeps_what_is_given, without_other_errors), SETTINGS)


@cases(st.tuples(NUMBERS, st.integers(-1, 3), st.integers(-1, 5) | st.none()))
def test_a_generation_is_sensible_or_refused(case):
    temperature, samples, limit = case
    made = either(partial(Generation, limit, "", temperature, samples))
    sensible = 0 <= temperature < math.inf and samples >= 1 and (limit is None or limit >= 1)
    assert (made is not None) == (sensible and (samples == 1 or temperature > 0))


def run(*arguments):
    """`workbench …` in this process: its exit code, what it printed, and what it said on standard error."""
    printed, said = io.StringIO(), io.StringIO()
    with mock.patch("sys.argv", ["workbench", *arguments]), contextlib.redirect_stderr(said):  # noqa: SIM117
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as end:
            main()
    return end.value.code or 0, printed.getvalue(), said.getvalue()


def _escapes(text):
    return any(ord(character) < 32 and character not in "\n\t" for character in text)


DATA = st.lists(
    st.tuples(st.sampled_from(["What", "Can", "\x1b[2J", "=cmd", "[red]", "$x$", "ß", "a\rb"]), st.booleans()),
    min_size=1,
    max_size=8,
)
AUDITS = st.tuples(DATA, st.integers(-1, 3), st.sampled_from(["", "table.csv", "no/such/table.csv", ".", "x" * 300]))


def audits(command, case):
    """The property: the table counts what the file holds; a wrong option is one sentence; no control characters."""
    records, top, out = case
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        lines = [{"image": "a.png", "query": f"{word} is it?", "harmful": harmful} for word, harmful in records]
        Path("data.jsonl").write_text("\n".join(map(json.dumps, lines)))
        code, printed, said = command("audit", "data.jsonl", "--top", str(top), *(["--out", out] if out else []))
        wrong = top < 1 or out in (".", "x" * 300)
        assert code == (2 if wrong else 0), said
        assert not _escapes(printed + said) and "Traceback" not in said
        if said.startswith("workbench:"):
            assert_one_sentence(said)
        if not wrong:
            harmful = sum(harmful for _, harmful in records)
            assert f"all: {len(records) - harmful} harmless, {harmful} harmful" in " ".join(printed.split())
            assert not out or len(Path(out).read_text().splitlines()) >= len(audit("data.jsonl")) + 1


@cases(AUDITS, share=0.2)
def test_an_audit_counts_or_says_what_is_wrong(case):
    audits(run, case)


def test_a_command_that_prints_data_as_they_are_is_found():
    def planted(*arguments):
        code, printed, said = run(*arguments)
        return code, printed.replace("\\x1b", "\x1b"), said

    assert_found(partial(audits, planted), AUDITS)


VALUES = WORD.filter(lambda text: "\0" not in text) | st.sampled_from(
    ["gone", "gone/model", "gone.json", "x" * 300, ".", "/", "what:9"]
)
WRONG = {  # command: options of which each refuses most values before a model is loaded
    "evaluate": [
        "--data",
        "--attack",
        "--judge",
        "--adapter",
        "--split",
        "--seed",
        "--temperature",
        "--samples",
        "--max-new-tokens",
    ],
    "train": ["--objective", "--lr", "--steps", "--hyper", "--data", "--accumulate", "--rank", "--curve", "--patience"],
    "plan": ["--method", "--gpu-memory", "--hyper", "--precision", "--rank", "--model"],
    "relearn": ["--counts", "--lr", "--steps", "--data"],
    "sweep": ["--grid", "--seeds", "--method"],
    "compare": [],
}
NEEDED = {
    "evaluate": ["--adapter", "gone", "--out", "out"],
    "train": ["--objective", "npo", "--data", "gone", "--out", "out"],
    "plan": ["--method", "gone", "--gpu-memory", "24GiB"],
    "relearn": ["--data", "gone", "--out", "out"],
    "sweep": ["--method", "gone", "--out", "out.csv"],
    "compare": ["gone", "gone"],
}


@st.composite
def commands(draw):
    """A command that must fail early, since a file that it needs is not there; with one more option of any value."""
    name = draw(st.sampled_from(sorted(WRONG)))
    extra = [f"{draw(st.sampled_from(WRONG[name]))}={draw(VALUES)}"] if WRONG[name] else []
    return [name, *NEEDED[name], *extra]


def fails_early(command, arguments):
    """The property: exit code 2 and one sentence, or the usage; and no file is written."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        code, printed, said = command(*arguments)
        assert code == 2, (code, printed, said)
        assert "Traceback" not in said and not _escapes(said)
        assert said.startswith("workbench: ") or "Usage: " in said
        if said.startswith("workbench: "):
            assert_one_sentence(said)
        assert not [file for file in Path().rglob("*") if file.is_file()]


@cases(commands(), share=0.5)
def test_a_command_that_cannot_work_says_so_before_it_starts(case):
    fails_early(run, case)


def test_a_command_that_writes_before_it_fails_is_found():
    def planted(*arguments):
        code, printed, said = run(*arguments)
        if "--lr" in " ".join(arguments):
            Path("half.csv").write_text("half")
        return code, printed, said

    assert_found(partial(fails_early, planted), commands())
