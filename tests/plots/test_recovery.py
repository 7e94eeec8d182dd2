"""The figure of recovery sets each attack's model beside one that never knew, and says the verdict."""

import pandas as pd
import pytest

from workbench import plots

COLUMNS = ["model", "arm", "lr", "step", "taught", "leaks", "never_knew", "verdict"]
ROWS = [
    ("npo", "secrets", 0.1, 300, False, 0.5, 0.1, "still there"),
    ("npo", "secrets", 0.2, 300, False, 0.6, 0.2, "unknown"),
    ("npo", "secrets", 0.2, 100, False, 0.9, 0.9, "unknown"),  # not the last step
    ("npo", "secrets", 0.2, 300, True, 0.8, 0.8, "gone"),  # was taught
    ("npo", "8 bits", 0.0, 1, False, 0.0, 0.0, "gone"),
    ("rmu", "secrets", 0.1, 300, False, 0.3, 0.1, "still there"),
    ("rmu", "secrets", 0.2, 300, False, 0.4, 0.2, "still there"),
    ("rmu", "8 bits", 0.0, 1, False, 0.05, 0.0, "unknown"),
]


def test_last_steps_of_untaught_rules_are_drawn_with_their_verdicts():
    figure = plots.recovery(pd.DataFrame(ROWS, columns=COLUMNS))
    assert [axis.get_title() for axis in figure.axes] == [plots.named("npo"), plots.named("rmu")]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "secrets, lr 0.1",
        "secrets, lr 0.2",
        "8 bits",
    ]
    shown = [[row for row in ROWS if row[0] == name and row[3] in (1, 300) and not row[4]] for name in ("npo", "rmu")]
    for axis, rows in zip(figure.axes, shown, strict=True):
        dots = sorted(tuple(dot) for points in axis.collections[1:] for dot in points.get_offsets().tolist())
        expected = [(100 * rate, place) for place, row in enumerate(rows) for rate in row[5:7]]
        assert dots == [pytest.approx(each) for each in sorted(expected)]
        assert [text.get_text() for text in axis.texts] == [row[7] for row in rows]
