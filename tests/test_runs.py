"""Bars can be switched off from outside, also in notebooks, whose saved outputs must not depend on what runs."""

from tqdm.notebook import tqdm_notebook

from workbench.runs import bar


def test_the_environment_switches_bars_off(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("tqdm.auto.tqdm", tqdm_notebook)
    monkeypatch.setattr("tqdm.notebook.display", shown.append)
    for value, bars in (("1", 0), ("0", 1), ("", 1)):
        monkeypatch.setenv("TQDM_DISABLE", value)
        shown.clear()
        assert list(bar(range(3), "counting")) == [0, 1, 2] and len(shown) == bars
    assert not list(bar([], "nothing", show=False)) and len(shown) == 1
    by_hand = bar(desc="by hand", total=2)
    by_hand.update(2)
    by_hand.close()
    assert len(shown) == 2
