"""What finished work depends on: every module that its code imports counts, comments and docstrings do not.

A list kept by hand once lacked the module that finds a query's first word, which attacks and repair call: a kept run
could be stale.
"""

import ast
import importlib
import sys

import pytest

from workbench import dependencies
from workbench.dependencies import body_hash, code_hash
from workbench.studies import methods
from workbench.studies.methods import run_key
from workbench.training import objectives

PACKAGE = {
    "__init__.py": "",
    "work.py": "from toy.steps import step\nUNUSED = 1\nRATE = 2\n\n\ndef make():\n    return step(RATE)\n",
    "steps.py": "def step(x):\n    from toy.deep import add\n\n    return add(x)\n",
    "deep.py": '"""Adds."""\n\n\ndef add(x):\n    """One more."""\n    return x + 1  # one\n',
    "other.py": "def other():\n    return 3\n",
}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The hash of a small package in which one file is changed."""
    folder = tmp_path / "toy"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    def hash_of(file="work.py", old="", new=""):
        for name, text in PACKAGE.items():
            (folder / name).write_text(text.replace(old, new) if name == file and old else text)
        for name in [name for name in sys.modules if name.split(".")[0] == "toy"]:
            del sys.modules[name]
        dependencies._source.cache_clear()
        dependencies._origin.cache_clear()
        code_hash.cache_clear()
        from toy.work import make

        return code_hash(make)

    yield hash_of
    dependencies._source.cache_clear()
    dependencies._origin.cache_clear()
    code_hash.cache_clear()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("work.py", "step(RATE)", "step(RATE) + 1"),
        ("work.py", "RATE = 2", "RATE = 3"),
        ("steps.py", "add(x)\n", "add(2 * x)\n"),
        ("deep.py", "x + 1", "x + 2"),  # two imports away, one of them inside a function
    ],
)
def test_a_change_of_code_that_is_used_counts(toy, file, old, new):
    assert toy(file, old, new) != toy()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("deep.py", "# one", "# another comment"),
        ("deep.py", "One more.", "Another docstring."),
        ("deep.py", '"""Adds."""\n\n\n', ""),
        ("work.py", "UNUSED = 1", "UNUSED = 2"),
        ("other.py", "return 3", "return 4"),
    ],
)
def test_comments_docstrings_and_code_that_is_not_used_do_not_count(toy, file, old, new):
    assert toy(file, old, new) == toy()


DECORATED = '''
def entered(**settings):
    return lambda function: function


def helper(x):
    return x


@entered(steps=100)
def loss(x):
    """A loss."""
    return helper(x) + 1  # one
'''


@pytest.fixture
def body(tmp_path, monkeypatch):
    """The body_hash of a decorated function, after a change of its module."""
    monkeypatch.syspath_prepend(tmp_path)

    def forget():
        sys.modules.pop("decorated", None)
        dependencies._source.cache_clear()
        dependencies._origin.cache_clear()
        code_hash.cache_clear()
        importlib.invalidate_caches()

    def hash_of(old="", new=""):
        assert old in DECORATED
        (tmp_path / "decorated.py").write_text(DECORATED.replace(old, new) if old else DECORATED)
        forget()
        return body_hash(importlib.import_module("decorated").loss)

    yield hash_of
    forget()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("steps=100", "steps=200"),
        ("@entered(steps=100)\n", ""),
        ("@entered(steps=100)", "@entered(steps=100)\n@entered()"),
        ("A loss.", "Another docstring."),
        ("# one", "# another comment"),
        ("return x", "return 2 * x"),  # what it calls is hashed elsewhere
    ],
)
def test_of_one_function_its_decorators_do_not_count(body, old, new):
    """An objective's recipe is its decorator's, and is hashed apart, as far as it is used."""
    assert body(old, new) == body()


@pytest.mark.parametrize(
    ("old", "new"), [("+ 1", "+ 2"), ("def loss(x)", "def loss(x, y=1)"), ("helper(x) + 1", "x + 1")]
)
def test_of_one_function_its_body_counts(body, old, new):
    assert body(old, new) != body()


@pytest.fixture
def changed(monkeypatch):
    """A run_key of the study, with one text of one module of ours changed."""
    source = dependencies._source

    def fingerprint_of(name, module, old, new, **options):
        def edited(asked):
            tree = source(asked)
            return ast.parse(ast.unparse(tree).replace(old, new)) if asked == module else tree

        assert old in ast.unparse(source(module))
        monkeypatch.setattr(dependencies, "_source", edited)
        code_hash.cache_clear()
        found = run_key(name, 0, **options)
        monkeypatch.setattr(dependencies, "_source", source)
        code_hash.cache_clear()
        return found

    return fingerprint_of


def test_the_study_depends_on_what_finds_a_first_word(changed):
    module = "workbench.data.first_words"
    assert changed("npo", module, "def first_word(query: str)", "def first_word(query: str, more=1)") != run_key(
        "npo", 0
    )


def test_of_the_objectives_a_model_depends_on_its_own(changed):
    change = ("workbench.training.objectives", "alpha: float=5.0", "alpha: float=6.0")  # DPO's
    assert changed("npo", *change) == run_key("npo", 0)
    assert changed("dpo", *change) != run_key("dpo", 0)


def test_of_a_recipe_a_model_depends_on_what_is_used(changed):
    """Another recipe, chosen after a sweep, leaves the sweep's runs as they are, with their own settings."""
    npo = objectives.named("npo")
    settings = {"lr": 1e-4, "steps": 10}
    change = ("workbench.training.objectives", f"lr={npo.lr!r}, steps={npo.steps}", "lr=1.0, steps=1")
    for own in (None, settings):
        assert changed("npo", *change, settings=own) == run_key("npo", 0, settings=own)  # the decorator does not count
    keys = {
        run_key("npo", 0, settings=own) for own in (None, settings, settings | {"lr": 2e-4}, settings | {"beta": 9.0})
    }
    assert len(keys) == 4 and run_key("npo", 0, settings={"lr": npo.lr, "steps": npo.steps}) == run_key("npo", 0)


def test_a_model_does_not_depend_on_the_recipes_of_others(changed):
    """Names inside a comprehension are not those of the module; once, every model hung on every recipe."""
    change = ("workbench.studies.methods", "'dpo-repaired': Method('dpo', 'repaired')", "'dpo-repaired': Method('dpo')")
    assert changed("npo", *change) == run_key("npo", 0)


def test_the_study_does_not_depend_on_figures_or_widgets():
    hashed = []
    source = dependencies._source
    code_hash.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dependencies, "_source", lambda module: hashed.append(module) or source(module))
        code_hash(methods.train_method, methods.validation_probe, methods.ask_part, methods.first_safe_step)
    chapters = {module.split(".")[1] for module in hashed if "." in module}
    assert {"data", "models", "attacks", "judges", "evaluation", "training"} <= chapters
    assert not chapters & {"plots", "widgets", "cli"}
