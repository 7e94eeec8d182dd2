"""An evaluation in one call asks, judges and counts; what it returns has the columns others rely on."""

from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.tables import RESULT_COLUMNS, rates


def test_evaluate_asks_every_shot_and_the_base_answers(vlm, few):
    results, answers = evaluate(vlm, few, ["none", "what:3"], batch_size=10)
    assert list(answers.columns) == ANSWER_COLUMNS and len(answers) == 24 * (1 + 3)
    assert set(answers[answers.attack == "what:3"].shot) == {1, 2, 3}
    assert list(results.columns) == RESULT_COLUMNS and results.equals(rates(answers))
    value = results.set_index(["attack", "queries", "metric"]).value
    assert value["none", "harmful", "asr"] > 0.8 and value["what:3", "harmful", "asr"] > 0.8
    assert value["none", "harmless", "utility"] > 0.8 and value["none", "harmless", "rr"] == 0
