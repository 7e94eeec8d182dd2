"""Checkpoint folders with one broken file: the model answers as the whole one does, or one sentence says why not."""

import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.fuzz.cases import assert_found, cases, right_or_one_sentence
from workbench.models.load import load

FILES = ("config.json", "model.safetensors", "tokenizer.json", "processor_config.json")
OPTIONAL = ("chat_template.jinja", "generation_config.json", "tokenizer_config.json")  # without them, others hold
FILES += OPTIONAL
OTHER = [
    "{}",
    "[]",
    "null",
    "3",
    '"text"',
    '{"model_type": "llava"}',
    '{"model_type": 3}',
    '{"a": {"b": []}}',
    "[" * 100_000,
]
GARBAGE = [b"", b"\0", b"garbage\n", b"\xff\xfe\x00", bytes(range(256)) * 4]
HEAD = [
    *(
        b"\xff" * 8,
        b"\0" * 8,
        (10**15).to_bytes(8, "little"),
    ),  # of a file of weights: the length of what describes them
]
CHANGES = st.one_of(
    st.tuples(st.just("removed"), st.none()),
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True)),
    st.tuples(st.just("replaced"), st.sampled_from([*GARBAGE, *(text.encode() for text in OTHER)])),
    st.tuples(st.just("begins"), st.sampled_from(HEAD)),
)
BROKEN = st.tuples(st.sampled_from(FILES), CHANGES)


def broken(folder, file, change):
    """Change a file of this folder. Returns False if what it said before may rightly be said otherwise now."""
    how, what = change
    path = folder / file
    content = path.read_bytes()
    if how == "removed":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: int(what * len(content))])
    elif how == "replaced":
        path.write_bytes(what)
    elif how == "begins":
        path.write_bytes(what + content[len(what) :])
    return how in ("removed", "cut", "begins") and file not in OPTIONAL


@pytest.fixture(scope="module")
def asked(tidy_llava):
    """The whole model's folder, and a function that asks the model in a folder."""
    from workbench.data.splits import miniguard_split

    examples = miniguard_split("test", sizes=(1, 1))

    def ask(folder):
        return load(folder, device="cpu").answers([e.picture() for e in examples], [e.query for e in examples])

    return tidy_llava, ask, ask(tidy_llava)


def answers_or_says_why(ask, whole, expected, case):
    """The property: one sentence, or answers; the whole model's if nothing but bytes are missing or broken.

    Another value in a file of settings may mean another model, whose answers are its own.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(whole, Path(name) / "model"))
        same = broken(folder, *case)
        with right_or_one_sentence():
            answers = ask(folder)
            assert len(answers) == len(expected)
            assert not same or answers == expected


def test_a_broken_checkpoint_answers_as_before_or_says_why(asked):
    whole, ask, expected = asked

    @cases(BROKEN, share=0.4)
    def try_all(case):
        answers_or_says_why(ask, whole, expected, case)

    try_all()


def test_weights_that_are_made_up_are_found(asked):
    """As transformers does by itself: what is missing in a checkpoint is drawn at random."""
    whole, ask, expected = asked

    def planted(folder):
        for file in FILES:
            if not (folder / file).is_file() or (folder / file).stat().st_size < (whole / file).stat().st_size:
                return ["made up"] * len(expected)
        return ask(folder)

    assert_found(partial(answers_or_says_why, planted, whole, expected), BROKEN)
