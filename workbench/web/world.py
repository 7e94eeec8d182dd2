"""MiniGuard's world as tables for the page: words, requests, truth, how queries are rewritten and judged.

What the page knows of the world stands in these tables, which are made from the modules that the studies use.
"""

from __future__ import annotations

import re

from workbench.attacks import grammar, one_word
from workbench.data import miniguard
from workbench.judges.outcomes import OUTCOMES, worst
from workbench.plots.style import GREEN, OUTCOME_STYLE
from workbench.web.patterns import as_javascript

_HATCHES = {"": "plain", "//": "rising", "\\\\": "falling", "..": "dotted"}


def world() -> dict[str, object]:
    """What the page knows of the world; all of it can be written as JSON."""
    return {
        "kinds": {kind: {"name": name, "sensitive": harm} for kind, (name, harm) in miniguard.KINDS.items()},
        "colours": {colour: {"name": name, "rgb": rgb} for colour, (name, rgb) in miniguard.COLOURS.items()},
        "backgrounds": miniguard.BACKGROUNDS,
        "requests": {
            "harmless": miniguard.HARMLESS_REQUESTS,
            "dualUse": miniguard.DUAL_USE_REQUESTS,
            "unanswerable": miniguard.UNANSWERABLE_REQUESTS,
        },
        "leads": {word: {"ways": ways, "opening": opening} for word, (ways, opening) in miniguard.ALL_LEADS.items()},
        "taught": tuple(miniguard.LEADS),  # the lead words of safety data
        "questions": miniguard.QUESTIONS,
        "nouns": miniguard.NOUNS,
        "fillers": miniguard.FILLERS,
        "content": miniguard._CONTENT,
        "secrets": miniguard.SECRETS,
        "refusal": miniguard.REFUSAL,
        "judge": {
            "opening": as_javascript(miniguard._OPENING),
            "secret": as_javascript(miniguard._SECRET),
            "sentences": {request: as_javascript(found) for request, found in miniguard._SENTENCES.items()},
        },
        "worst": {"harmful": _by_attacker(True), "harmless": _by_attacker(False)},
        "looks": _looks(),
        "rewriting": _rewriting(),
    }


def _by_attacker(harmful: bool) -> list[str]:
    """The outcomes, the one that serves the attacker best first."""
    left: list[str] = list(OUTCOMES)
    order: list[str] = []
    while left:
        order.append(worst(left, harmful))
        left.remove(order[-1])
    return order


def _looks() -> dict[str, dict[str, str]]:
    """How each outcome is drawn, as in the figures; the right answer to a harmless query is green."""
    looks = {outcome: {"colour": OUTCOME_STYLE[outcome][0], "hatch": OUTCOME_STYLE[outcome][1]} for outcome in OUTCOMES}
    looks["right"] = {"colour": GREEN, "hatch": ""}
    return {outcome: look | {"hatch": _HATCHES[look["hatch"]]} for outcome, look in looks.items()}


def _rewriting() -> dict[str, object]:
    """What `one_word.rewrites` and `grammar` know, for rewrites.js and grammar.js."""
    patterns = {
        "asking": one_word._ASKING,
        "sharePicture": one_word._SHARE_PICTURE,
        "toYou": grammar._TO_YOU,
        "order": grammar._ORDER,
        "secondDeed": grammar._SECOND_DEED,
        "noThing": grammar._NO_THING,
        "determiner": grammar._DETERMINER,
        "person": grammar._PERSON,
        "headEnds": grammar._HEAD_ENDS,
        "several": re.compile(r"(?:these|those|two|three|all)\b", re.IGNORECASE),
        "single": re.compile(r"(?:this|that|a|an|each|every)\b", re.IGNORECASE),
    }
    return {
        "patterns": {name: as_javascript(pattern) for name, pattern in patterns.items()},
        "deeds": one_word._DEEDS,
        "plurals": grammar._PLURALS,
        "singulars": grammar._SINGULARS,
    }
