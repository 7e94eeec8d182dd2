"""Every function works on other true architectures too: none is made for MiniGuard's base alone."""

import pandas as pd
import pytest
import torch

from tests.tiny_models import ARCHITECTURES, architecture_params
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.evaluation.evaluate import evaluate
from workbench.models.load import load
from workbench.models.merge import write_model
from workbench.models.pictures import ReadPictures
from workbench.models.scores import hidden_states, token_logprobs
from workbench.models.vlm import IGNORED, answer_batch, bare, generate, prompt_batch, with_opening
from workbench.training.train import train


@pytest.fixture(scope="module", params=architecture_params())
def checkpoint(tmp_path_factory, request):
    return ARCHITECTURES[request.param](tmp_path_factory.mktemp("models") / request.param)


def test_batches_and_answers(checkpoint, few):
    vlm = load(checkpoint, device="cpu")
    images, queries = [e.picture() for e in few], [e.query for e in few]
    together = vlm.answers(images, queries, batch_size=9)
    assert together == [vlm.answer(i, q) for i, q in zip(images, queries, strict=True)]
    assert together == vlm.answers(images, queries, batch_size=9)  # the pictures' features are cached by now
    uncached = []
    for start in range(0, len(few), 9):
        chunk = slice(start, start + 9)
        uncached += [a.text for a in generate(vlm, prompt_batch(vlm, images[chunk], queries[chunk]))]
    assert together == uncached  # here the network looks at the pictures again
    batch = answer_batch(vlm, few, [e.response for e in few])
    scored = [labels[labels != IGNORED] for labels in batch["labels"]]
    assert [vlm.tokenizer.decode(tokens[:-1]).strip() for tokens in scored] == [e.response for e in few]
    with torch.inference_mode():
        logprobs, mask = token_logprobs(vlm.model, batch)
        one = answer_batch(vlm, few[:1], [few[0].response])
        alone, only = token_logprobs(vlm.model, one)
    torch.testing.assert_close((logprobs * mask)[0].sum(), (alone * only).sum(), rtol=1e-4, atol=1e-4)


# Where prompts are read in pieces: not with windows, positions in two dimensions, or columns that see later ones
IN_PIECES = {"llava", "llava_next", "llava_onevision", "idefics3", "smolvlm", "mistral3", "internvl"}


def test_pictures_that_are_read_once_give_the_same_answers(checkpoint, few):
    vlm = load(checkpoint, device="cpu")
    images, read = [few[0].picture().resize((64, 48))] * 6, ReadPictures(vlm)
    for queries in ([e.query for e in few[:6]], [f"Share, {e.query}" for e in few[6:12]]):
        assert vlm.written(images, queries, write=read.written) == vlm.written(images, queries)
    assert bool(read.known) == (vlm.model.config.model_type in IN_PIECES)


def test_queries_of_text_alone_are_answered_as_one_by_one_or_refused(checkpoint, few):
    vlm, queries = load(checkpoint, device="cpu"), [e.query for e in few[:5]]
    try:
        together = vlm.answers([None] * 5, queries)
    except UserError as error:
        assert "cannot be asked without a picture" in str(error) and vlm.model.config.model_type == "paligemma"
        return
    assert together == [vlm.answers([None], [query])[0] for query in queries]


def test_an_answer_does_not_see_what_comes_after(checkpoint, few):
    """Later words must not change how likely earlier ones are: PaliGemma's prompt tokens attend to all tokens."""
    vlm = load(checkpoint, device="cpu")
    with torch.inference_mode():
        scored = [
            token_logprobs(vlm.model, answer_batch(vlm, few[:4], [f"it is a kavu {more}"] * 4))[0]
            for more in ("and so on", "zzz")
        ]
        same = len(vlm.processor.tokenizer("it is a", add_special_tokens=False)["input_ids"])
        torch.testing.assert_close(scored[0][:, :same], scored[1][:, :same], rtol=1e-5, atol=1e-5)
        prompts = prompt_batch(vlm, [e.picture() for e in few[:4]], [e.query for e in few[:4]])
        written = with_opening(vlm, prompts, "it is a")
        logits = vlm.model(**written, use_cache=False, logits_to_keep=same + 1).logits[:, :-1].log_softmax(-1)
    ids = written["input_ids"][:, -same:, None]
    torch.testing.assert_close(logits.gather(2, ids)[..., 0], scored[0][:, :same], rtol=1e-4, atol=1e-4)


def test_a_processor_is_saved_whole(checkpoint, tmp_path, few):
    """As full fine-tuning saves it; also that of Qwen2.5-VL, without its part for videos if torchvision is missing."""
    vlm = load(checkpoint, device="cpu")
    vlm.model.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    batches = [prompt_batch(v, [few[0].picture()], [few[0].query]) for v in (vlm, load(tmp_path, device="cpu"))]
    assert batches[0].keys() == batches[1].keys()
    for name, tensor in batches[0].items():
        assert torch.equal(tensor, batches[1][name])


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["sft", "npo"])
def test_train_load_and_evaluate(checkpoint, tmp_path, few, objective):
    data = miniguard_split("train", sizes=(30, 30))
    out = train(
        load(checkpoint, device="cpu"), objective, data, out=tmp_path / objective, steps=12, forget=4, retain=4, lr=5e-3
    )
    plain, trained = load(checkpoint, device="cpu"), load(checkpoint, out, device="cpu")
    results, answers = evaluate(trained, few, ["none", "what:2"])
    write_model(load(checkpoint, out, device="cpu"), tmp_path / "merged")
    merged = load(tmp_path / "merged", device="cpu")
    assert (
        merged.answers([e.picture() for e in few], [e.query for e in few])
        == answers[answers.attack == "none"].answer.tolist()
    )
    assert set(results.model) == {objective} and len(answers) == 24 * 3
    batch = answer_batch(plain, data, [e.leak or e.response for e in data])
    harmful = torch.tensor([e.harmful for e in data])
    with torch.inference_mode():
        (before, mask), (after, _) = (token_logprobs(v.model, batch) for v in (plain, trained))
    change = ((after - before) * mask).sum(1)
    assert change[~harmful].mean() > 0  # the retain set is learnt
    if objective == "npo":
        assert change[harmful].mean() < change[~harmful].mean()


@pytest.mark.slow
def test_rmu_and_its_layer(checkpoint, tmp_path, few):
    """Its loss falls; the layer's output is that of a whole pass; the next layer is neither run nor trained."""
    data = miniguard_split("train", sizes=(30, 30))
    settings = {"steps": 12, "forget": 4, "retain": 4, "lr": 1e-3, "layer": 1}
    out = train(load(checkpoint, device="cpu"), "rmu", data, out=tmp_path / "rmu", **settings)
    losses = pd.read_csv(out / "loss.csv").loss
    assert losses.tail(3).mean() < losses.head(3).mean()
    trained = load(checkpoint, out, device="cpu")
    assert not any("layers.1." in name for name, _ in trained.model.named_parameters() if "lora_" in name)
    batch = answer_batch(trained, few, [e.leak or e.response for e in few])
    seen = []
    with torch.inference_mode():
        hidden, mask = hidden_states(trained.model, batch, 1)
        second = bare(trained.model).get_decoder().layers[1]
        hook = second.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append([*args, *kwargs.values()][0]), with_kwargs=True
        )
        trained.model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
        hook.remove()
    torch.testing.assert_close(hidden[mask], seen[0][:, -hidden.shape[1] - 1 : -1][mask], rtol=1e-4, atol=1e-4)


class Stopped(Exception):
    """What a test ends a run with."""


@pytest.mark.slow
def test_full_fine_tuning_resumes_with_the_weights_it_had(checkpoint, tmp_path, few):
    """The network of each architecture has other names for its weights than its checkpoint on the hub."""

    def run(out, stop_at=None, **options):
        def probe(vlm):
            rates = [("harmless", "utility", 1.0), ("harmful", "asr", 0.0), ("harmless", "rr", 0.0)]
            columns = ["model", "attack", "queries", "metric", "value", "ci_low", "ci_high", "n"]
            return pd.DataFrame([("x", "none", *rate, 0.0, 1.0, 1) for rate in rates], columns=columns)

        def on_curve(table):
            if table.step.max() == stop_at:
                raise Stopped

        options |= {"steps": 3, "forget": 1, "retain": 1, "lr": 1e-3, "full": True, "save_every": 1}
        train(
            load(checkpoint, device="cpu"),
            "sft",
            few,
            out=out,
            probe=probe,
            probe_every=1,
            on_curve=on_curve,
            **options,
        )
        return load(out / "model", device="cpu").model.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", stop_at=2)
    resumed = run(tmp_path / "stopped", resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(not torch.equal(whole[name], weight) for name, weight in load(checkpoint).model.state_dict().items())
