"""The tables in README and docs/results.md are those of the shipped study, and what is said of it holds."""

import importlib.util

import pytest

from tests.docs.pages import README, RESULTS, ROOT
from workbench.studies.headline import EARLY
from workbench.studies.methods import CONTROL
from workbench.studies.shipped import shipped
from workbench.studies.summary import figures, over_bases, with_twins


@pytest.fixture(scope="module")
def tables():
    """docs/tables.py."""
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, RESULTS], ids=["README", "results"])
def test_tables_are_those_of_the_shipped_study(tables, page):
    assert tables.filled(page) == page and "<!-- table: " in page


def test_every_table_stands_in_a_page(tables):
    for name in tables.TABLES:
        assert f"<!-- table: {name} -->" in README + RESULTS


def test_the_shipped_study_keeps_the_projects_promises():
    """Means over bases: the mirage, and its cure."""
    table = over_bases(figures(with_twins(shipped("results"))))
    mean = table.pivot(index="model", columns="figure", values="value")
    sft, control, npo = (mean.loc[name] for name in EARLY)
    assert sft.asr <= 0.1 and sft.asr_what3 - sft.asr >= 0.3 and sft.rr_share1 - sft.rr >= 0.5
    assert control.asr_what3 - control.asr < sft.asr_what3 - sft.asr
    assert npo.asr_what3 <= 0.13 and npo.rr_share1 <= 0.12 and npo.utility >= 0.95
    assert mean.asr["never-knew"] <= 0.02 < 0.95 <= mean.asr["base"]
    assert mean.asr_what3[CONTROL] - mean.asr[CONTROL] <= 0.05
