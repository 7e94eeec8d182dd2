"""How cases are tried: over and over for a test, and for an error that was planted until it is found."""

import contextlib
import functools
import time

import pytest
from hypothesis import Phase, given, settings

from tests.fuzz.conftest import PROFILE
from workbench.errors import UserError

LONGEST = 10  # seconds that one case may take, on a machine with other work to do
tried: list[str] = []  # the name of the property, once for each case


def cases(strategy, share=1.0):
    """Decorator of a test of one argument, the case; `share` of the profile's number of them are tried."""

    def decorate(test):
        @functools.wraps(test)
        def timed(case):
            tried.append(test.__name__)
            started = time.monotonic()
            test(case)
            assert time.monotonic() - started < LONGEST, "a case took too long"

        count = max(2, round(share * PROFILE.max_examples))
        return settings(PROFILE, max_examples=count)(given(case=strategy)(timed))

    return decorate


def assert_found(check, strategy):
    """The planted error is found by this property, within as many cases as the large profile tries."""
    quick = settings.get_profile("quick")
    search = settings(quick, max_examples=400, phases=[Phase.generate], report_multiple_bugs=False, print_blob=False)

    def run(case):
        check(case)

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        search(given(case=strategy)(run))()


@contextlib.contextmanager
def right_or_one_sentence():
    """Whatever goes wrong within this block is one sentence to the user; what follows in it is then left out."""
    try:
        yield
    except UserError as error:
        assert_one_sentence(str(error))


def assert_one_sentence(text):
    """A message of one line that ends, and is no longer than a person reads."""
    assert len(text.splitlines()) == 1 and text.rstrip().endswith((".", "?")), text
    assert len(text) < 2500, text
