"""Predicted memory: near what a real step takes, sane for the models that people use, and a proposal that
fits.
"""

import dataclasses

import pytest
import torch
import transformers

from benchmarks.llava import write_llava
from benchmarks.training import peak
from workbench.data.example import Example
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.files import data_dir
from workbench.models.configuration import configuration
from workbench.training.memory import GIB, MARGIN, fitting, longest, picture_tokens, predict
from workbench.training.settings import Settings

SEVEN_B = "llava-hf/llava-1.5-7b-hf"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_llava(tmp_path_factory.mktemp("models") / "llava", layers=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"checkpointing": True},
        {"objective": "rmu", "full": True, "lr": 1e-5},
        pytest.param({"accumulate": 2}, marks=pytest.mark.long),
        pytest.param({"full": True, "lr": 1e-5}, marks=pytest.mark.long),
        pytest.param({"objective": "rmu"}, marks=pytest.mark.long),
        pytest.param({"objective": "dpo", "rank": 64}, marks=pytest.mark.long),
        pytest.param({"forget": 8, "retain": 2, "projector": True}, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_real_step_takes_what_was_predicted(checkpoint, options):
    """Within 20% of the measured peak (resident memory of a process of its own, above what the libraries
    take).
    """
    predicted = predict(configuration(checkpoint), step(**options), 152, 9, torch.float32)
    measured = peak("ours", checkpoint, steps=3, **options)
    assert predicted.total == pytest.approx(measured, rel=0.2)


def step(objective="npo", forget=4, retain=4, **options):
    return Settings.of(objective, forget=forget, retain=retain, **options)


def predicted(layers=None, **options):
    """Of LLaVA-1.5-7B, or of its first layers alone."""
    config = configuration(SEVEN_B)
    config.text_config.num_hidden_layers = layers or config.text_config.num_hidden_layers
    return predict(config, step(**options))


def test_the_weights_are_those_of_the_model():
    """LLaVA-1.5-7B has 7.06 thousand million parameters of 2 bytes.

    In 4 bits, what QLoRA's authors give and 16-bit embeddings.
    """
    assert predicted(objective="rmu").weights == pytest.approx(2 * 7.063e9, rel=0.01)
    assert 4.0 < predicted(objective="rmu", four_bit=True).weights / GIB < 4.5


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (SEVEN_B, 7.063e9),
        ("llava-hf/llava-1.5-13b-hf", 13.35e9),
        ("HuggingFaceTB/SmolVLM-256M-Instruct", 256.5e6),
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3.755e9),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8.292e9),
    ],
)
def test_shapes_that_are_known_have_the_models_parameters(model, parameters):
    with torch.device("meta"):
        network = transformers.AutoModelForImageTextToText.from_config(configuration(model))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=1e-3)


def test_planning_leaves_a_loaded_model_as_it_is(vlm, few):
    """A configuration is shared with the network that it made."""
    before = vlm.answer(few[0].picture(), few[0].query)
    predict(vlm.model.config, step(), 60, 10, torch.float32)
    assert vlm.model.config._attn_implementation != "planned"
    assert vlm.answer(few[0].picture(), few[0].query) == before


def test_what_saves_memory_saves_it():
    whole, full = predicted(layers=8), predicted(layers=8, full=True)
    assert predicted(layers=8, accumulate=2).step < 0.6 * whole.step
    assert predicted(layers=8, checkpointing=True).step < 0.3 * whole.step
    assert predicted(layers=8, objective="rmu").step < 0.5 * whole.step  # 2 of 8 layers
    assert predicted(layers=8, forget=8, retain=8).step == pytest.approx(2 * whole.step, rel=0.1)
    assert full.trained > 2 * full.weights  # AdamW's two moments and the gradient
    assert predicted(layers=8, rank=32).trained == pytest.approx(2 * whole.trained, rel=0.01)


TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
}
OTHERS = [
    transformers.LlavaNextConfig(text_config=transformers.LlamaConfig(**TEXT, num_hidden_layers=4)),
    transformers.Idefics3Config(text_config=transformers.LlamaConfig(**TEXT, num_hidden_layers=4)),
    transformers.Gemma3Config(text_config=TEXT | {"head_dim": 16, "num_hidden_layers": 4}),
    transformers.Qwen2_5_VLConfig(
        text_config=TEXT | {"num_hidden_layers": 4, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    ),
]


@pytest.mark.parametrize("config", OTHERS, ids=lambda c: c.model_type)
def test_other_architectures_are_planned(config):
    npo, rmu = (predict(config, step(o), 60, 10, torch.float32) for o in ("npo", "rmu"))
    assert npo.weights == rmu.weights > 0
    assert rmu.trained == npo.trained / 2  # 2 of 4 layers
    assert 0 < rmu.step < npo.step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "gib", "says"),
    [
        (SEVEN_B, 80, "as they are"),
        (SEVEN_B, 24, "checkpointing"),
        pytest.param(SEVEN_B, 16, "4 parts, checkpointing", marks=pytest.mark.long),
        pytest.param("llava-hf/llava-1.5-13b-hf", 24, "checkpointing, 4 bits", marks=pytest.mark.long),
    ],
)
def test_proposals_fit(model, gib, says):
    tried = list(fitting(configuration(model), step(), gib * GIB))
    assert [fits for *_, fits in tried] == [False] * (len(tried) - 1) + [True]
    settings, memory, _ = tried[-1]
    assert settings.saving == says and memory.total < gib * GIB
    assert all(m.total > (1 - MARGIN) * gib * GIB for _, m, _ in tried[:-1])


@pytest.mark.long
def test_full_fine_tuning_of_7b_fits_on_no_small_gpu():
    assert not any(fits for *_, fits in fitting(configuration(SEVEN_B), step(full=True), 40 * GIB))


def test_the_longest_prompt_and_answer_are_found():
    """36 tokens of the picture, and words as MiniGuard's tokenizer counts them."""
    some = [
        Example(str(i), e.image, "what is this ?", e.harmful, "it is a kavu")
        for i, e in enumerate(miniguard_split("test", sizes=(2, 2)))
    ]
    prompt, answer = longest("miniguard", some)
    longer = dataclasses.replace(some[2], query="what is this or that thing ?", leak="it is a kavu or a pelo kavu")
    assert longest("miniguard", [*some[:2], longer, some[3]]) == (prompt + 3, answer + 4)
    assert prompt > 36 + 4 and answer == 4 + 1


def test_mistakes(tmp_path):
    config = configuration("miniguard")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids"):
        configuration("no/such-model")
    (tmp_path / "config.json").write_text((data_dir() / "bases" / "miniguard" / "config.json").read_text())
    with pytest.raises(UserError, match=r"The processor of .* cannot be read"):
        longest(tmp_path, miniguard_split("test", sizes=(1, 1)))
    with pytest.raises(UserError, match="no objective 'x'"):
        step("x")
    with pytest.raises(UserError, match="has no layer 9"):
        predict(config, step("rmu", layer=9))
    with pytest.raises(UserError, match="match no linear layer"):
        predict(config, step(targets=["nothing"]))
    with pytest.raises(UserError, match="do not divide"):
        step(accumulate=3)
    with pytest.raises(UserError, match="type llama cannot be planned"):
        predict(transformers.LlamaConfig(), step())
    with pytest.raises(UserError, match="pass --prompt-tokens"):
        picture_tokens(transformers.Qwen2_5_VLConfig())
