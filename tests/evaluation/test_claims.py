"""A claim's number, its limit and the verdict stand side by side, and a missing number bears nothing out."""

import pytest

from workbench.errors import UserError
from workbench.evaluation.claims import claims


def test_a_claim_holds_up_to_its_limit():
    table = claims(
        [
            ("few", 10.0, "≤", 10),
            ("too many", 10.1, "≤", 10),
            ("enough", 20.0, "≥", 20),
            ("unknown", float("nan"), "≥", 0),
        ]
    )
    assert table["holds"].tolist() == ["yes", "no", "yes", "no"]
    assert table["limit"].tolist() == ["≤ 10", "≤ 10", "≥ 20", "≥ 0"]
    assert table["value"].tolist()[:3] == [10.0, 10.1, 20.0]


def test_another_comparison_is_refused():
    with pytest.raises(UserError, match="compares by '<'"):
        claims([("few", 1.0, "<", 2)])
