"""Prompts and answers are the model's own, token for token, and two lines of plain transformers agree with ours.

The tiny checkpoints follow the conventions of those on the hub (tests/tiny_models.py): who writes the first token, what
stands before an answer, what ends a turn.
"""

import pytest
import torch

from tests.tiny_models import ARCHITECTURES, architecture_params
from workbench.errors import UserError
from workbench.models.generation import Generation
from workbench.models.load import load
from workbench.models.scores import token_logprobs
from workbench.models.template import check_answers, plain_text, remove_tokens, special_tokens
from workbench.models.vlm import IGNORED, answer_batch, prompt_batch, with_opening

# What ends a turn on the hub, and whether it is the tokenizer's end of sequence
ENDS = {
    "llava": "</s>",
    "llava_next": "</s>",
    "llava_onevision": "<|im_end|>",
    "mistral3": "</s>",
    "idefics3": "<end_of_utterance>",
    "smolvlm": "<end_of_utterance>",
    "qwen2_vl": "<|im_end|>",
    "qwen2_5_vl": "<|im_end|>",
    "qwen3_vl": "<|im_end|>",
    "gemma3": "<end_of_turn>",
    "paligemma": "<eos>",
    "internvl": "<|im_end|>",
}


@pytest.fixture(scope="module", params=architecture_params())
def vlm(tmp_path_factory, request):
    """A model with weights large enough for its answers to depend on what it reads."""
    vlm = load(ARCHITECTURES[request.param](tmp_path_factory.mktemp("models") / request.param), device="cpu")
    for weight in vlm.model.parameters():
        weight.mul_(2 if weight.dim() > 1 else 1)
    vlm.name = request.param
    return vlm


def chat(query, answer=None):
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": query}]}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def plain(vlm, example, answer=None):
    """What transformers' own code reads, as in a model card: nothing of ours, one example, no padding."""
    turns = chat(example.query, answer)
    turns[0]["content"][0] |= {"image": example.picture()}
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    batch = dict(vlm.processor.apply_chat_template(turns, add_generation_prompt=answer is None, **options))
    return {name: tensor for name, tensor in batch.items() if name != "labels"}  # PaliGemma's processor makes some


def test_a_prompt_is_the_models_own(vlm, few):
    for example in few[:4]:
        ours = prompt_batch(vlm, [example.picture()], [example.query])
        theirs = plain(vlm, example)
        assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
        assert torch.equal(ours["pixel_values"], theirs["pixel_values"])


def test_a_prompt_begins_with_one_first_token_at_most(vlm, few):
    bos = vlm.tokenizer.bos_token_id
    ids = prompt_batch(vlm, [few[0].picture()], [few[0].query])["input_ids"][0].tolist()
    expected = vlm.name in ("llava", "llava_next", "mistral3", "idefics3", "smolvlm", "gemma3", "paligemma")
    assert ids.count(bos) == int(expected)


def test_prompt_and_answer_are_the_templates_own(vlm, few):
    """The template may go on after the end of the turn, and LLaVA's leaves it out. PaliGemma has no template."""
    for example in [e for e in few if not e.harmful][:4]:
        batch = answer_batch(vlm, [example], [example.response])
        ours = batch["input_ids"][0].tolist()
        theirs = plain(vlm, example, example.response)["input_ids"][0].tolist()
        if vlm.name == "paligemma":  # its processor ends every text with a line break, as if an answer followed
            theirs = plain(vlm, example)["input_ids"][0].tolist()
            theirs += vlm.tokenizer(example.response, add_special_tokens=False)["input_ids"]
        body = ours[:-1] if vlm.name in ("llava", "paligemma") else ours
        assert theirs[: len(body)] == body
        rest = vlm.tokenizer.decode(theirs[len(body) :])
        assert not rest.strip(), rest
        assert vlm.tokenizer.decode(ours[-1:]) == ENDS[vlm.name]


def test_a_models_own_greedy_answer_given_back_has_the_tokens_that_it_wrote(vlm, few):
    """As far as a text has one way to be written: the model is made to write the tokens of a sentence."""
    example = next(e for e in few if not e.harmful)
    labels = answer_batch(vlm, [example], [example.response])["labels"][0]
    written = labels[labels != IGNORED]
    text = vlm.processor.batch_decode(written[None], skip_special_tokens=True)[0].strip()
    assert text == example.response
    again = answer_batch(vlm, [example], [text])["labels"][0]
    assert again[again != IGNORED].tolist() == written.tolist()


def test_an_answer_stops_at_the_end_of_the_turn(vlm, few):
    """Whatever the network prefers: its logits are bent so that it ends the turn after two tokens."""
    end, seen = vlm.form.ending[-1], []

    def end_the_turn(module, inputs, output):
        seen.append(1)
        output[..., :] = 0.0
        output[..., end if len(seen) == 3 else 20] = 9.0

    hook = vlm.model.get_output_embeddings().register_forward_hook(end_the_turn)
    try:
        (answer,) = vlm.written([few[0].picture()], [few[0].query])
    finally:
        hook.remove()
    assert len(seen) == 3 and not answer.cut and answer.text == vlm.tokenizer.decode([20, 20]).strip()


def test_plain_transformers_gives_the_same_answer_and_the_same_log_probability(vlm, few):
    """A second opinion that shares nothing with ours: generate and a forward pass, as in a model card."""
    example = few[0]
    inputs = plain(vlm, example)
    start = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        ids = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=8)[0, start:]
        text = vlm.processor.decode(ids, skip_special_tokens=True).strip()
        before = vlm.generation
        vlm.generation = Generation(max_new_tokens=8)
        assert vlm.answer(example.picture(), example.query) == text
        vlm.generation = before

        answer = "it is red"
        batch = answer_batch(vlm, [example, few[1]], [answer, "a longer answer to another query"])
        logprobs, mask = token_logprobs(vlm.model, batch)
        ours = (logprobs * mask)[0].sum().item()

        tokens = batch["labels"][0][batch["labels"][0] != IGNORED]
        whole = dict(inputs) | {"input_ids": torch.cat([inputs["input_ids"][0], tokens])[None]}
        for name in ("attention_mask", "token_type_ids", "mm_token_type_ids"):
            if name in inputs:
                kind = 1 if name != "mm_token_type_ids" and (name == "attention_mask" or vlm.name == "paligemma") else 0
                whole[name] = torch.cat([inputs[name][0], torch.full_like(tokens, kind)])[None]
        logits = vlm.model(**whole).logits[0].log_softmax(dim=-1)
        theirs = sum(logits[start - 1 + place, token].item() for place, token in enumerate(tokens.tolist()))
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-3)


def test_an_opening_has_the_tokens_of_the_answer_that_it_begins(vlm, few):
    batch = prompt_batch(vlm, [few[0].picture()], [few[0].query])
    opened = with_opening(vlm, batch, "it is")["input_ids"][0].tolist()
    whole = answer_batch(vlm, [few[0]], ["it is"])["input_ids"][0].tolist()
    assert opened == whole[: len(opened)] and len(whole) - len(opened) == len(vlm.form.ending)


def test_special_tokens_are_no_text(vlm, few):
    """In a query they are left out; an answer with one of them is refused, since it cannot be taught."""
    tokens = special_tokens(vlm.processor)
    assert "" not in tokens and ENDS[vlm.name] in tokens
    clean = prompt_batch(vlm, [few[0].picture()], ["What is it?"])["input_ids"]
    for token in tokens:
        dirty = prompt_batch(vlm, [few[0].picture()], [f"What {token}is it?{token}"])["input_ids"]
        assert dirty.tolist() == clean.tolist(), token
        with pytest.raises(UserError, match="which the model does not read as text"):
            check_answers(vlm.processor, ["fine", f"it is {token}"])


def test_an_empty_special_token_removes_nothing():
    assert remove_tokens("What is it?", ["", "<s>"]) == "What is it?"


def test_half_an_emoji_becomes_a_question_mark(vlm):
    assert plain_text(vlm.processor, "What is \ud83d this?") == "What is ? this?"
    assert plain_text(vlm.processor, "What is \U0001f600 this?") == "What is \U0001f600 this?"


def test_a_system_prompt_is_read_or_refused(vlm, few):
    vlm.generation = Generation(system_prompt="You answer in one word.")
    try:
        ids = prompt_batch(vlm, [few[0].picture()], [few[0].query])["input_ids"][0]
    except UserError as error:
        assert "no place for a system prompt" in str(error)
    else:
        assert "You answer in one word." in vlm.tokenizer.decode(ids)
    finally:
        vlm.generation = Generation()
