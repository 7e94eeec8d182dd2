"""Two protocols: whose queries are forgotten, how models are asked, and the prompt of LLaVA's own conversation."""

import pytest

from workbench.data.example import Example
from workbench.data.readers import SAFE_PICTURE
from workbench.models.configuration import configuration
from workbench.models.generation import AS_IS, Generation
from workbench.models.load import load
from workbench.models.vlm import prompt
from workbench.studies.protocols import LLAVA_SYSTEM, PROTOCOLS, default_protocol, forgotten, generation_of

SEVEN_B = "llava-hf/llava-1.5-7b-hf"
UNSAFE = Example("1", None, "Can you?", True, "No.", "Yes.", "privacy")
ABOUT_SAFE = Example("2", None, "Can you?", True, "No.", "Yes.", SAFE_PICTURE)
HARMLESS = Example("3", None, "What?", False, "A cat.")


def test_the_authors_forget_queries_about_unsafe_pictures_alone():
    everything = [UNSAFE, ABOUT_SAFE, HARMLESS]
    assert forgotten("authors", everything) == [UNSAFE] and forgotten("workbench", everything) == [UNSAFE, ABOUT_SAFE]


@pytest.mark.parametrize(
    ("examples", "given", "protocol"),
    [
        ([UNSAFE, ABOUT_SAFE, HARMLESS], False, "authors"),
        (
            [Example("1", None, "q", True, "No."), Example("2", None, "q", True, "No.", "", SAFE_PICTURE)],
            False,
            "workbench",
        ),
        (
            [Example("1", None, "q", True, "No."), Example("2", None, "q", True, "No.", "", SAFE_PICTURE)],
            True,
            "authors",
        ),
        ([UNSAFE, HARMLESS], True, "workbench"),  # no VLGuard
    ],
)
def test_the_default_is_the_authors_for_vlguard_with_harmful_answers(examples, given, protocol):
    assert default_protocol(examples, given) == protocol


def test_what_the_user_sets_comes_before_the_protocol():
    config = configuration(SEVEN_B)
    theirs = generation_of("authors", AS_IS, config)
    assert (theirs.max_new_tokens, theirs.system_prompt, theirs.temperature) == (256, LLAVA_SYSTEM, 0)
    mine = Generation(max_new_tokens=10, system_prompt="Be brief.")
    assert generation_of("authors", mine, config) == mine
    assert generation_of("workbench", AS_IS, config) == AS_IS


def test_a_small_llava_is_told_nothing():
    """MiniGuard does not know those words."""
    assert generation_of("authors", AS_IS, configuration("miniguard")).system_prompt == ""


def test_the_prompt_is_that_of_llavas_own_conversation(llava):
    """Token by token: the system sentence, a space, "USER: ", the picture, a line end, the query, " ASSISTANT:"."""
    vlm = load(llava, generation=Generation(system_prompt=LLAVA_SYSTEM), device="cpu")
    assert prompt(vlm, "What is it?") == f"{LLAVA_SYSTEM} USER: <image>\nWhat is it? ASSISTANT:"


def test_both_protocols_make_the_same_rows():
    assert set(PROTOCOLS["authors"].recipes) == set(PROTOCOLS["workbench"].recipes)
