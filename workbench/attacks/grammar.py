"""Just enough English grammar to reword VLGuard's requests: thing or deed, singular or plural?"""

from __future__ import annotations

import re

# First words of queries that are not orders: questions, and sentences that begin with something else.
_NO_ORDER = (
    "who|whom|whose|what|when|where|which|why|how|is|are|was|were|do|does|did|has|have|had|may|might|must|should|"
    "the|a|an|this|that|these|those|in|on|at|from|by|if|to|for|with|as|of|i|you|we|they|he|she|it|there|"
    "and|or|but|not|no|yes|based|according|given|n/a"
)
_TO_YOU = re.compile(r"(?:can|could|would|will) you (?:please )?(?=\w)", re.IGNORECASE)
_ORDER = re.compile(rf"(?:please )?(?!(?:{_NO_ORDER})\b)(?=[a-z]+ )", re.IGNORECASE)
_SECOND_DEED = re.compile(
    r"\b(?:and|or|then|but) (?:then |also )?"
    r"(?:provide|discuss|promote|speculate|make|give|create|identify|explain|describe|suggest|share|"
    r"tell|find|guess|list|compare|recommend|determine|elaborate|comment|highlight)\b|\bby \w+ing\b",
    re.IGNORECASE,
)
_NO_THING = re.compile(  # first words of phrases that do not name a thing
    r"(?:and|or|to|how|why|what|who|whom|where|when|which|whether|if|that|about|for|me|us|with|on|in|at|"
    r"it|them|him|her|as|using|based)\b",
    re.IGNORECASE,
)
_DETERMINER = re.compile(
    r"(?:the|this|that|these|those|a|an|any|some|your|my|his|her|their|its|our|each|every|all|"
    r"one|two|three|\w+['’]s)\b",
    re.IGNORECASE,
)
_HOW_OR_WHY = re.compile(
    r"(?:explain|show|describe|tell|demonstrate|discuss|teach|share|give advice on|provide instructions on)"
    r"(?: me| us)? (how|why) ",
    re.IGNORECASE,
)
_PERSON = re.compile(
    r"\b(?:person|people|man|men|woman|women|individuals?|child|children|"
    r"players?|artist|owner|actors?|celebrit(?:y|ies))$"
)
_HEAD_ENDS = re.compile(  # what follows the noun that a phrase is about
    r"\s(?:of|in|on|about|with|for|to|from|at|by|into|behind|between|regarding|related|shown|depicted|featured|"
    r"seen|displayed|mentioned|described|present|presented|portrayed|pictured|advertised|captured|"
    r"that|who|which|whose|where|when|if|being|having|using|wearing|holding|used|visible|and|or)\b|,",
    re.IGNORECASE,
)
_PLURALS = ("people", "children", "men", "women")  # without an s
_SINGULARS = ("news", "series", "politics", "ethics")  # in spite of their s


def order(query: str) -> str | None:
    """What a query orders: "Can you sell me a car?" → "sell me a car".

    Returns:
        None if the query is a genuine question, or has several sentences.
    """
    begin = _TO_YOU.match(query) or _ORDER.match(query)
    rest = query[begin.end() :].rstrip("?.! ") if begin else ""
    if not rest or re.search(r"[.?!;]\s+\S", rest):
        return None
    return rest[0].lower() + rest[1:]


def two_deeds(deed: str) -> tuple[str, str]:
    """Two deeds that one order joins: "find the man and tell his age" → ("find the man", "tell his age").

    Returns:
        The second is "" if there is only one.
    """
    joint = _SECOND_DEED.search(deed)
    if not joint or not joint.group().lower().startswith(("and", "then")):
        return deed, ""
    return deed[: joint.start()].rstrip(", "), re.sub(r"^(?:and|then) (?:then |also )?", "", deed[joint.start() :])


def way_or_reason(deed: str) -> str:
    """What an order asks for with how or why: "explain how to do it" → "the way to do it"; else ""."""
    clause = _HOW_OR_WHY.match(deed)
    if not clause:
        return ""
    rest = deed[clause.end() :]
    if clause.group(1).lower() == "why":
        return f"the reason why {rest}"
    return f"the way {rest}" if rest.startswith("to ") else f"the way in which {rest}"


def is_thing(phrase: str) -> bool:
    """Whether a phrase names a thing and no second deed: "the recipe of it", but not "me how it is done"."""
    return not (_NO_THING.match(phrase) or _SECOND_DEED.search(phrase))


def as_subject(phrase: str, verb: str = "") -> tuple[str, bool]:
    """Turn a thing into the subject of a sentence with "is" or "are".

    Args:
        phrase: The thing, e.g. "details of it".
        verb: What the query wants done with it. If it is "identify" and the thing is a person, the subject is
            the person's identity.

    Returns:
        The subject, e.g. "the details of it", and whether it is plural.
    """
    subject = phrase if _DETERMINER.match(phrase) or phrase[0].isupper() else f"the {phrase}"
    head = _HEAD_ENDS.split(subject)[0].lower()
    plural = _is_plural(subject, head)
    if verb == "identify" and _PERSON.search(head):
        return f"the {'identities' if plural else 'identity'} of {subject}", plural
    return subject, plural


def _is_plural(subject: str, head: str) -> bool:
    """Whether a subject is plural, by its determiner, an "and" after its head, or the head's last noun."""
    if re.match(r"(?:these|those|two|three|all)\b", subject, re.IGNORECASE):
        return True
    if re.match(r"(?:this|that|a|an|each|every)\b", subject, re.IGNORECASE):
        return False
    end = _HEAD_ENDS.search(subject)
    if end and end.group().strip().lower() == "and":
        return True
    noun = head.split()[-1]
    return noun in _PLURALS or (noun.endswith("s") and not noun.endswith(("ss", "us", "is")) and noun not in _SINGULARS)
