"""Fuzzing: whatever comes in, what comes out is right or one sentence, and soon.

Every property is a function of the code that it tests, so that a second test can hand it code with an error planted in
it, and see that the error is found. `make fuzz` takes the large profile.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

_SHARED = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("quick", max_examples=40, derandomize=True, database=None, **_SHARED)
settings.register_profile("fuzz", max_examples=400, **_SHARED)
PROFILE = settings.get_profile(os.environ.get("WORKBENCH_FUZZ", "quick"))
_COUNTED = "cases"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Notes how many cases a test has tried."""
    from tests.fuzz.cases import tried

    before = len(tried)
    try:
        return (yield)
    finally:
        item.user_properties.append((_COUNTED, len(tried) - before))


def pytest_terminal_summary(terminalreporter):
    """Says how many cases all tests have tried."""
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, ())]
    counts = [count for report in reports for name, count in report.user_properties if name == _COUNTED]
    if counts:
        terminalreporter.write_line(f"fuzz: {sum(counts)} cases in {len(counts)} tests")
