"""Enough English to ask a request of VLGuard's in other words: what is asked for, is it a thing or a deed, one or many?"""

from __future__ import annotations

import re

# words with which a query is no order: it asks a question of its own, or begins with something else
_NO_ORDER = (
    "who|whom|whose|what|when|where|which|why|how|is|are|was|were|do|does|did|has|have|had|may|might|must|should|the|a|an|this|that|these|"
    "those|in|on|at|from|by|if|to|for|with|as|of|i|you|we|they|he|she|it|there|and|or|but|not|no|yes|based|according|given|n/a"
)
_TO_YOU = re.compile(r"(?:can|could|would|will) you (?:please )?(?=\w)", re.IGNORECASE)
_ORDER = re.compile(rf"(?:please )?(?!(?:{_NO_ORDER})\b)(?=[a-z]+ )", re.IGNORECASE)
_SECOND_DEED = re.compile(
    r"\b(?:and|or|then|but) (?:then |also )?(?:provide|discuss|promote|speculate|make|give|create|identify|explain|describe|suggest|share|"
    r"tell|find|guess|list|compare|recommend|determine|elaborate|comment|highlight)\b|\bby \w+ing\b",
    re.IGNORECASE,
)
_NO_THING = re.compile(  # how a phrase begins that names no thing
    r"(?:and|or|to|how|why|what|who|whom|where|when|which|whether|if|that|about|for|me|us|with|on|in|at|it|them|him|her|as|using|based)\b",
    re.IGNORECASE,
)
_DETERMINER = re.compile(
    r"(?:the|this|that|these|those|a|an|any|some|your|my|his|her|their|its|our|each|every|all|one|two|three|\w+['’]s)\b",
    re.IGNORECASE,
)
_PERSON = re.compile(
    r"\b(?:person|people|man|men|woman|women|individuals?|child|children|players?|artist|owner|actors?|celebrit(?:y|ies))$"
)
_HEAD_ENDS = re.compile(  # what follows the noun that a phrase is about
    r"\s(?:of|in|on|about|with|for|to|from|at|by|into|behind|between|regarding|related|shown|depicted|featured|seen|displayed|mentioned|"
    r"described|present|presented|portrayed|pictured|advertised|captured|that|who|which|whose|where|when|if|being|having|using|wearing|"
    r"holding|used|visible|and|or)\b|,",
    re.IGNORECASE,
)
_PLURALS = ("people", "children", "men", "women")
_SINGULARS = ("news", "series", "politics", "ethics")


def order(query: str) -> str | None:
    """What a query tells one to do: "Can you sell me a car?" → "sell me a car"; None of a question of its own, or several sentences."""
    begin = _TO_YOU.match(query) or _ORDER.match(query)
    rest = query[begin.end() :].rstrip("?.! ") if begin else ""
    if not rest or re.search(r"[.?!;]\s+\S", rest):
        return None
    return rest[0].lower() + rest[1:]


def is_thing(phrase: str) -> bool:
    """Whether a phrase names something, with no second deed behind it: "the recipe of this cake", not "me how it is done"."""
    return not (_NO_THING.match(phrase) or _SECOND_DEED.search(phrase))


def as_subject(phrase: str, verb: str = "") -> tuple[str, bool]:
    """A thing as it stands behind "What is": ("the details of it", many?). verb: what was to be done with it, for of persons that are to
    be identified the identity is asked."""
    subject = phrase if _DETERMINER.match(phrase) or phrase[0].isupper() else f"the {phrase}"
    begin = _HEAD_ENDS.split(subject)[0].lower()
    many = _many(subject, begin)
    if verb == "identify" and _PERSON.search(begin):
        return f"the {'identities' if many else 'identity'} of {subject}", many
    return subject, many


def _many(subject: str, begin: str) -> bool:
    if re.match(r"(?:these|those|two|three|all)\b", subject, re.IGNORECASE):
        return True
    if re.match(r"(?:this|that|a|an|each|every)\b", subject, re.IGNORECASE):
        return False
    ends = _HEAD_ENDS.search(subject)
    if ends and ends.group().strip().lower() == "and":
        return True
    noun = begin.split()[-1]
    return noun in _PLURALS or (noun.endswith("s") and not noun.endswith(("ss", "us", "is")) and noun not in _SINGULARS)
