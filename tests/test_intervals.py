"""An interval holds its rate, to the last digit, at the ends too: a figure's error bars must not be negative."""

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.intervals import wilson


@settings(deadline=None)  # the first call imports statsmodels
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_rate(pair):
    count, n = pair
    low, high = wilson(count, n)
    assert 0 <= low <= count / n <= high <= 1
