"""A vision-language model and its processor: load, prompt, batch, answer; LoRA, and the reference = the adapter switched off.

Nothing here knows MiniGuard: the shipped base is loaded, prompted and batched as any other model of transformers'
`AutoModelForImageTextToText`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import importlib.util
import inspect
import json
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import torch
import torch.nn.functional as F
import transformers
from huggingface_hub import is_offline_mode
from PIL import Image
from safetensors import SafetensorError
from transformers.utils import ModelOutput

from workbench.data.readers import data_dir, digest
from workbench.errors import UserError, first_line, say
from workbench.files import written_whole
from workbench.models.architectures import ARCHITECTURES

Batch = dict[str, torch.Tensor]
IGNORED = -100  # the label of positions that must not enter a loss
MAX_NEW_TOKENS = 64  # where the model's generation_config sets none
FEATURE_BYTES = 2**29  # of pictures' features that a VLM keeps
TRUSTS = ("remote-code", "pickles")


@dataclass
class VLM:
    """A model, the processor that goes with it, and the name under which it stands in tables."""

    model: Any
    processor: Any
    name: str
    features: OrderedDict = field(default_factory=OrderedDict, repr=False)  # what `features_kept` keeps
    fits: int | None = field(default=None, repr=False)  # the largest batch of answers, once one was too large

    @property
    def device(self) -> torch.device:
        return self.model.device

    def answer(self, image: Image.Image, query: str, max_new_tokens: int | None = None) -> str:
        """The model's greedy answer to one query about one picture (RGB, any size)."""
        return self.answers([image], [query], max_new_tokens)[0]

    def answers(
        self,
        images: Sequence[Image.Image],
        queries: Sequence[str],
        max_new_tokens: int | None = None,
        batch_size: int = 100,
        opening: str = "",
    ) -> list[str]:
        """Greedy answers to many queries, image i with query i, in batches; the same as asking one by one.

        opening: how each answer is made to begin; it is part of the answer. A batch for which the memory is not enough is halved, as
        are all after it.
        """
        found: list[str] = []
        while len(found) < len(queries):
            chunk = slice(len(found), len(found) + min(batch_size, self.fits or batch_size))
            try:
                batch = with_opening(self, prompt_batch(self, images[chunk], queries[chunk]), opening)
                with features_kept(self, batch, images[chunk]):
                    found += generate(self, batch, max_new_tokens)
            except (MemoryError, RuntimeError) as error:
                if not isinstance(error, MemoryError) and not accelerate.utils.memory.should_reduce_batch_size(error):
                    raise
                tried = len(queries[chunk])
                if tried == 1:
                    raise UserError("The memory is not enough to answer a single query; take a smaller model or a larger device.") from None
                self.fits = tried // 2
                self.features.clear()
                accelerate.utils.memory.clear_device_cache(garbage_collection=True)
        return [f"{opening} {text}".strip() for text in found]


def processes() -> accelerate.PartialState:
    """This process among those that `torchrun` or `accelerate launch` started (one, where neither did): number, rank, device."""
    return accelerate.PartialState(cpu=not torch.cuda.is_available() and not torch.backends.mps.is_available())


def best_device() -> torch.device:
    """cuda, else mps, else cpu; among several processes, this one's own."""
    return processes().device


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs that have it, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def load(
    model: str | Path = "miniguard",
    adapter: str | Path | None = None,
    device: str | None = None,
    four_bit: bool = False,
    trust: Collection[str] = (),
) -> VLM:
    """Load a VLM by folder or hub id ("miniguard" is the shipped base), with a PEFT adapter on top if one is given.

    Precision is float32 on CPU and bfloat16 on GPUs that have it; with `four_bit`, linear weights are held in 4 bits (NF4; CUDA and
    bitsandbytes are needed). trust: what is refused unless asked for, of TRUSTS: "remote-code", Python that comes with the model, is run
    (and that is said on standard error); "pickles", weights that are no safetensors, are read.
    An architecture that is not in architectures.py is taken with a word on standard error, if its language model's layers can be found.
    Raises UserError where the model or the adapter cannot be loaded, or the checkpoint lacks some of its weights.
    """
    if unknown := set(trust) - set(TRUSTS):
        raise UserError(f"There is no trust in {', '.join(sorted(unknown))}; choose from {', '.join(TRUSTS)}.")
    source = str(data_dir() / "miniguard-base") if str(model) == "miniguard" else str(model)
    place, remote = torch.device(device) if device else best_device(), "remote-code" in trust
    options = {"dtype": best_dtype(place), "use_safetensors": None if "pickles" in trust else True}
    if four_bit:
        options |= {"quantization_config": _four_bit(place), "device_map": {"": place}}
    if remote:
        warn_of_code(str(model))
    try:
        with quiet():
            network, read = transformers.AutoModelForImageTextToText.from_pretrained(
                source, trust_remote_code=remote, output_loading_info=True, **options
            )
            processor = load_processor(source, network.config.model_type, remote)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise not_loaded(str(model), error) from None
    if missing := sorted(read["missing_keys"]):
        raise UserError(f"The checkpoint {str(model)!r} lacks {len(missing)} of its weights, such as {missing[0]}; download it again.")
    _check_architecture(network, str(model))
    vlm = VLM(
        (network if four_bit else network.to(place)).eval().requires_grad_(False),
        processor,
        "base" if adapter is None else Path(adapter).resolve().name,
    )
    return vlm if adapter is None else _with_adapter(vlm, Path(adapter))


@functools.cache
def warn_of_code(model: str) -> None:
    """Said once, before it is run."""
    say(f"Python code that comes with the model {model!r}, if any, is run with your rights, since you trust it.")


def not_loaded(model: str, error: Exception) -> UserError:
    """Why a model was not loaded, and what helps."""
    said = str(error)
    if "for this kind of AutoModel" in said:
        return UserError(f"The model {model!r} takes no pictures (it is no image-text-to-text model); choose one that does.")
    if "gated repo" in said:
        return UserError(f"The model {model!r} is gated: accept its terms at https://huggingface.co/{model}, then give `hf auth login`.")
    if "trust_remote_code" in said:
        return UserError(
            f"The model {model!r} comes with Python code of its own, which is not run unasked; read it, and if you trust it, give "
            "`workbench --trust remote-code …`, or load(…, trust=['remote-code'])."
        )
    if "orchvision" in said:
        version = transformers.__version__
        return UserError(
            f"The model {model!r} needs torchvision with transformers {version}: install the one that goes with your torch, or a newer "
            "transformers."
        )
    if any(Path(model).glob("*.bin")) and not any(Path(model).glob("*.safetensors")):
        return UserError(
            f"The weights of {model!r} are pickles, not safetensors; convert them, or if you trust where they come from, give "
            "`workbench --trust pickles …`, or load(…, trust=['pickles'])."
        )
    if isinstance(error, SafetensorError) or ("No such file" in said and ".safetensors" in said):
        return UserError(f"The checkpoint {model!r} is not whole ({first_line(error)}); download it again.")
    if is_offline_mode() and not Path(model).exists():
        return UserError(
            f"The model {model!r} cannot be loaded: it is not on this machine, and HF_HUB_OFFLINE forbids to fetch it; unset that, or give "
            "a folder."
        )
    return UserError(
        f"The model {model!r} cannot be loaded ({first_line(error)}); give a folder with a checkpoint, a hub id, or 'miniguard'."
    )


def _check_architecture(network, model: str) -> None:
    kind, known = network.config.model_type, ", ".join(ARCHITECTURES)
    if kind in ARCHITECTURES:
        return
    try:
        decoder = network.get_decoder()
        found = len(decoder.layers) > 0 and isinstance(decoder.norm.weight, torch.nn.Parameter)
    except AttributeError:
        found = False
    if not found:
        raise UserError(f"The model {model!r} is a {kind}, whose language model's layers cannot be found; choose one of {known}.")
    say(f"The model {model!r} is a {kind}, with which nothing here has been tested; it goes on all the same. Tested: {known}.")


def load_processor(source: str, kind: str, remote: bool = False):
    """A model's processor. Where torchvision is missing and the processor wants it for videos, one for pictures and text alone."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    whole = getattr(transformers, PROCESSOR_MAPPING_NAMES.get(kind) or "", None)
    if whole is None or "video_processor" not in whole.get_attributes() or transformers.utils.is_torchvision_available():
        return transformers.AutoProcessor.from_pretrained(source, trust_remote_code=remote)

    class PicturesOnly(whole):
        def check_argument_for_proper_class(self, name, argument):
            return type(None) if name == "video_processor" else super().check_argument_for_proper_class(name, argument)

        def save_pretrained(self, folder, **options):
            for part in (self.image_processor, self.tokenizer):
                part.save_pretrained(folder, **options)
            (Path(folder) / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")

    settings = {name: value for name, value in whole.get_processor_dict(source)[0].items() if not isinstance(value, dict)}
    parts = {"image_processor": transformers.AutoImageProcessor, "tokenizer": transformers.AutoTokenizer}
    loaded = {name: part.from_pretrained(source, trust_remote_code=False) for name, part in parts.items()}
    wanted = inspect.signature(whole.__init__).parameters
    return PicturesOnly(**loaded, **{name: value for name, value in settings.items() if name in wanted})


def _four_bit(place: torch.device) -> transformers.BitsAndBytesConfig:
    if place.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("4-bit weights (--four-bit) need a CUDA GPU and bitsandbytes (pip install -e '.[gpu]'); do without them.")
    return transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=best_dtype(place))


def _with_adapter(vlm: VLM, adapter: Path) -> VLM:
    import peft

    if not (adapter / "adapter_config.json").is_file():
        raise UserError(f"The folder {adapter} holds no adapter (adapter_config.json); give what `workbench train --out` wrote.")
    run = adapter / "config.json"  # as `training.train` writes it; adapters from elsewhere have none
    try:
        trained_on = json.loads(run.read_text()).get("base_identity") if run.is_file() else None
        if trained_on and trained_on != identity(vlm):
            raise UserError(f"The adapter {adapter} was trained on another model; give --model the one that it was trained on.")
        with quiet():
            vlm.model = peft.PeftModel.from_pretrained(vlm.model, adapter, use_safetensors=True).eval()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"The adapter {adapter} cannot be loaded on this model ({first_line(error)}); give a whole one, and the base it was trained on."
        ) from None
    return vlm


def identity(vlm: VLM) -> str:
    """Tells one pretrained model from another, in any precision: a hash of its token embeddings' first rows and its decoder's last norm."""
    network = bare(vlm.model)
    parts = [network.get_input_embeddings().weight[:256], network.get_decoder().norm.weight]
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(part.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return found.hexdigest()


def fingerprint(vlm: VLM) -> str:
    """Tells one trained model from another: a hash of the first values of every parameter, adapters included."""
    found = hashlib.blake2b(digest_size=8)
    for name, part in vlm.model.named_parameters():
        found.update(name.encode() + part.detach().flatten()[:256].float().cpu().numpy().tobytes())
    return found.hexdigest()


@contextlib.contextmanager
def quiet():
    """No progress bars, advice or warnings about other libraries' futures while weights load: notebooks are compared to the letter."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


# --- batches -------------------------------------------------------------------------------------------------------------


def plain(vlm: VLM, query: str) -> str:
    """A query without special tokens: a person's text must not pose as a picture or end its own turn."""
    return without(query, vlm.processor.tokenizer.all_special_tokens)


def without(text: str, tokens: Collection[str]) -> str:
    """A text from which tokens are taken out, again and again: what is left may make up another, as in <im<image>age>."""
    while any(token in text for token in tokens):
        for token in tokens:
            text = text.replace(token, "")
    return text


def prompt(vlm: VLM, query: str) -> str:
    """One query as the model's own chat template words it, with the place of the picture, up to where the answer begins.

    Special tokens in the query are taken out. Raises UserError where there is no template, or none with a place for a picture.
    """
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": plain(vlm, query)}]}
    if not vlm.processor.chat_template:
        raise UserError(f"The model {vlm.name!r} has no chat template; put a chat_template.jinja beside its weights.")
    text = vlm.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    token = getattr(vlm.processor, "image_token", None)
    if token and str(token) not in text:
        raise UserError(f"The chat template of the model {vlm.name!r} has no place for a picture; give it one, or choose another model.")
    return text


def prompt_batch(vlm: VLM, images: Sequence[Image.Image], queries: Sequence[str], **options) -> Batch:
    """Prompts padded on the left, so that every answer begins in the same column: input_ids (B, T), pixel_values, …

    options: further ones for the processor.
    """
    batch = dict(
        vlm.processor(
            text=[prompt(vlm, query) for query in queries],
            images=[[image] for image in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
            add_special_tokens=False,  # the chat template has written them
            **options,
        ).to(vlm.device, vlm.model.dtype)
    )
    batch.pop("labels", None)  # PaliGemma's processor makes some; a prompt has none
    return batch


def with_opening(vlm: VLM, batch: Batch, opening: str) -> Batch:
    """A `prompt_batch` in which every answer has begun with the same words, tokenized apart from the prompt as answers are."""
    if not opening:
        return batch
    ids = torch.tensor(vlm.processor.tokenizer(opening, add_special_tokens=False)["input_ids"], device=vlm.device)
    prompts = batch["input_ids"].shape
    return {
        name: torch.cat([tensor, behind(vlm, name, ids).to(tensor.dtype).expand(prompts[0], -1)], dim=1)
        if tensor.shape == prompts
        else tensor
        for name, tensor in batch.items()
    }


def behind(vlm: VLM, name: str, ids: torch.Tensor) -> torch.Tensor:
    """What a batch's tensor `name`, of one value a token, holds for tokens `ids` that stand behind the prompt: the same shape."""
    kind = ARCHITECTURES.get(bare(vlm.model).config.model_type)
    values = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return values.get(name, torch.full_like(ids, kind.token_type if kind and name == "token_type_ids" else 0))


def answer_batch(vlm: VLM, images: Sequence[Image.Image], queries: Sequence[str], answers: Sequence[str]) -> Batch:
    """Prompts with their answers, for a loss over answers: adds labels (B, T), IGNORED but at answer tokens and end of sequence.

    Answers are tokenized apart from the prompt, as they are when the model writes them, and padded on the right; so a row reads
    pad … prompt, answer, end, pad …, and no token straddles the border.
    """
    tokenizer = vlm.processor.tokenizer
    batch = prompt_batch(vlm, images, queries)
    end = [tokenizer.eos_token_id]
    tails = [torch.tensor(tokenizer(a, add_special_tokens=False)["input_ids"] + end) for a in answers]

    def pad(rows: list[torch.Tensor], value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value).to(vlm.device)

    ids, labels = pad(tails, tokenizer.pad_token_id), pad(tails, IGNORED)  # (B, answer)
    prompts = batch["input_ids"].shape
    for name, tensor in batch.items():  # whatever else counts one value a token (token types …)
        if tensor.shape == prompts and name not in ("input_ids", "attention_mask"):
            batch[name] = torch.cat([tensor, behind(vlm, name, ids)], dim=1)
    batch["attention_mask"] = torch.cat([batch["attention_mask"], (labels != IGNORED).long()], dim=1)
    batch["labels"] = torch.cat([torch.full_like(batch["input_ids"], IGNORED), labels], dim=1)
    batch["input_ids"] = torch.cat([batch["input_ids"], ids], dim=1)
    return batch


# what a network sees in the pictures of the batch at hand, in this thread
_FEATURES: ContextVar[Any] = ContextVar("features", default=None)


@contextlib.contextmanager
def features_kept(vlm: VLM, batch: Batch, images: Sequence[Image.Image]) -> Iterator[None]:
    """Within this block the network is asked about a `prompt_batch` of these pictures, and does not look at them if it has before.

    What vision tower and projector made of the same pictures in the same order is kept (FEATURE_BYTES, the least recently used go first)
    and handed over in place of `get_image_features`, the public method by which every VLM of transformers looks at a picture. Where vision
    or projector are being trained, nothing is kept.
    """
    network = bare(vlm.model)
    looking = [module for module in network.modules() if hasattr(module, "get_image_features")]
    if not looking or any(p.requires_grad for p in _outside_decoder(network)):
        yield
        return
    key, kept = tuple(map(digest, images)), vlm.features
    if key not in kept:
        wanted = inspect.signature(network.get_image_features).parameters
        with torch.no_grad():
            seen = network.get_image_features(**{n: t for n, t in batch.items() if n in wanted}, return_dict=True)
        kept[key] = _pared(seen)
        while len(kept) > 1 and sum(map(_bytes, kept.values())) > FEATURE_BYTES:
            kept.popitem(last=False)
    kept.move_to_end(key)
    before = _FEATURES.set(kept[key])
    for module in looking:
        module.get_image_features = _or_kept(module.get_image_features)
    try:
        yield
    finally:
        for module in looking:
            vars(module).pop("get_image_features", None)  # another thread may have taken it off: then that one looks for itself
        _FEATURES.reset(before)


def _or_kept(look: Callable) -> Callable:
    """The same method, but for what is kept of the pictures at hand."""

    @functools.wraps(look)  # `generate` reads its signature
    def get_image_features(*args, **kwargs):
        seen = _FEATURES.get()
        return look(*args, **kwargs) if seen is None else seen

    return get_image_features


def _pared(seen: ModelOutput) -> ModelOutput:
    """The same without what no language model reads, the vision tower's hidden states and attentions."""
    parts = {name: part for name, part in vars(seen).items() if name not in ("hidden_states", "attentions")}
    pared = type(seen)(**{name: part for name, part in parts.items() if name in seen})
    vars(pared).update(parts)  # where pooler_output is no field of the output, it is an attribute all the same
    return pared


def _outside_decoder(network) -> Iterator[torch.nn.Parameter]:
    """The parameters of vision tower and projector."""
    language = {id(p) for module in (network.get_decoder(), network.get_output_embeddings()) for p in module.parameters()}
    return (p for p in network.parameters() if id(p) not in language)


def _bytes(output) -> int:
    """The size of all tensors in what a network put out."""
    if isinstance(output, torch.Tensor):
        return output.nbytes
    parts = vars(output).values() if isinstance(output, ModelOutput) else output if isinstance(output, list | tuple) else ()
    return sum(map(_bytes, parts))


def generate(vlm: VLM, batch: Batch, max_new_tokens: int | None = None, **options) -> list[str]:
    """Greedy answers to a `prompt_batch`, as text without special tokens. options: further ones of transformers' `generate`.

    A model without pictures has a tokenizer for a processor.
    """
    tokenizer = getattr(vlm.processor, "tokenizer", vlm.processor)
    limit = max_new_tokens or vlm.model.generation_config.max_new_tokens or MAX_NEW_TOKENS
    with torch.inference_mode(), quiet():
        ids = vlm.model.generate(
            **batch, do_sample=False, num_beams=1, max_new_tokens=limit, pad_token_id=tokenizer.pad_token_id, **options
        )
    new = ids[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in vlm.processor.batch_decode(new, skip_special_tokens=True)]


def answer_streamed(vlm: VLM, image: Image.Image, query: str, written: Callable[[str], None], stopped: Callable[[], bool]) -> str:
    """The answer to one query, as `VLM.answer` gives it; `written` is called with each piece as it is written.

    Ends after the token at which `stopped` is true.
    """

    class Streamer(transformers.TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            written(text)

    def stop(ids, scores, **options):
        return torch.full((len(ids),), stopped(), device=ids.device)

    streamer = Streamer(vlm.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    batch = prompt_batch(vlm, [image], [query])
    with features_kept(vlm, batch, [image]):
        return generate(vlm, batch, streamer=streamer, stopping_criteria=transformers.StoppingCriteriaList([stop]))[0]


def _answer_columns(batch: Batch) -> tuple[dict, torch.Tensor]:
    """A batch's inputs without its labels, and the labels from the column on in which the first answer begins: (B, A)."""
    labels = batch["labels"]
    start = int((labels != IGNORED).any(dim=0).nonzero()[0])
    return {name: value for name, value in batch.items() if name not in ("labels", "reference")}, labels[:, start:]


def token_logprobs(model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """log π of every answer token: (B, A) log-probabilities, and a (B, A) mask of which columns are answer tokens.

    Only columns from the first label on are scored: the vocabulary's logits over image and prompt are never made.
    """
    inputs, targets = _answer_columns(batch)
    logits = model(**inputs, use_cache=False, logits_to_keep=targets.shape[1] + 1).logits[:, :-1]  # (B, A, vocabulary)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = targets.to(logits.device)  # of a network spread over devices, the last one's
    nll = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
    return -nll, targets != IGNORED


def hidden_states(model, batch: Batch, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the decoder's layer `layer` (from 1) puts out where an answer token is about to be said: (B, A, H), and the (B, A) mask.

    Later layers are not run.
    """
    inputs, targets = _answer_columns(batch)
    decoder = bare(model).get_decoder()
    layers, seen = decoder.layers, []
    hook = layers[layer - 1].register_forward_hook(lambda module, args, output: seen.append(output))
    decoder.layers = layers[:layer]
    try:
        model(**inputs, use_cache=False, logits_to_keep=1)
    finally:
        decoder.layers = layers
        hook.remove()
    hidden = seen[0][0] if isinstance(seen[0], tuple) else seen[0]  # (B, T, H)
    return hidden[:, -targets.shape[1] - 1 : -1], (targets != IGNORED).to(hidden.device)


def bare(model):
    """The network of transformers itself, without DDP's or peft's wrapping."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextlib.contextmanager
def reference(model):
    """π₀: within this block, the same network with its adapter switched off, or the frozen copy that `freeze_copy` made."""
    model = getattr(model, "module", model)
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield model
    else:
        yield model.frozen_copy[0]


# --- what is trained -----------------------------------------------------------------------------------------------------


def depth(vlm: VLM) -> int:
    """How many layers the language model has."""
    return len(bare(vlm.model).get_decoder().layers)


def linear_modules(vlm: VLM, targets: Sequence[str] = (), layers: int | None = None, projector: bool = False) -> list[str]:
    """Full names of the linear modules to be trained: the language model's, and with `projector` the projector's.

    targets: only language modules with these last names, as in "down_proj". layers: only the first so many layers. The vision tower stays
    frozen. Raises UserError where nothing matches.
    """
    network = bare(vlm.model)
    decoder = network.get_decoder()
    prefix = next(name for name, module in network.named_modules() if module is decoder)
    last = len(decoder.layers) if layers is None else layers
    chosen = [
        f"{prefix}.layers.{number}.{name}"
        for number, layer in enumerate(decoder.layers[:last])
        for name in _linear(layer)
        if not targets or name.rsplit(".", 1)[-1] in targets
    ]
    if not chosen:
        there = sorted({name.rsplit(".", 1)[-1] for name in _linear(decoder.layers)})
        raise UserError(f"The targets {', '.join(targets)} match no linear layer of the language model; it has {', '.join(there)}.")
    if projector:
        kind = network.config.model_type
        if kind not in ARCHITECTURES:
            raise UserError(f"Where the projector of a {kind} lies is not known; leave --projector out, or add it to architectures.py.")
        within = re.compile(rf"(^|\.){re.escape(ARCHITECTURES[kind].projector)}(\.|$)")
        chosen += [name for name in _linear(network) if within.search(name)]
    return chosen


def _linear(module) -> list[str]:
    """The linear modules within another, by the names that they have without adapters."""
    names = [name for name, part in module.named_modules() if isinstance(part, torch.nn.Linear) and ".lora_" not in name]
    return [name.removesuffix(".base_layer") for name in names]


def add_lora(vlm: VLM, modules: Sequence[str], rank: int, alpha: int, seed: int) -> VLM:
    """The same VLM with a fresh LoRA adapter (as yet without effect) on these modules; all else is frozen.

    The network is shared with `vlm`, not copied: unload it before reuse.
    """
    import peft

    torch.manual_seed(seed)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(modules), task_type="CAUSAL_LM")
    with quiet():
        return VLM(peft.get_peft_model(vlm.model, config), vlm.processor, vlm.name)


@contextlib.contextmanager
def further_lora(vlm: VLM, rank: int, alpha: int, seed: int) -> Iterator[VLM]:
    """Within this block, the same VLM with a fresh LoRA adapter to be trained on top of all that it has learnt, its own adapter included.

    Afterwards `vlm` is as it was.
    """
    modules = linear_modules(vlm)
    if not hasattr(vlm.model, "peft_config"):
        student = add_lora(vlm, modules, rank, alpha, seed)
        try:
            yield student
        finally:
            student.model.unload()
            vlm.model.requires_grad_(False).eval()
        return
    import peft

    tuner, own = vlm.model.base_model, vlm.model.active_adapters
    forward = {name: vars(vlm.model)[name] for name in ("forward", "_original_forward") if name in vars(vlm.model)}
    torch.manual_seed(seed)
    vlm.model.add_adapter("further", peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules, task_type="CAUSAL_LM"))
    tuner.set_adapter([*own, "further"])
    for name, parameter in vlm.model.named_parameters():
        parameter.requires_grad_(".further." in name)
    try:
        yield VLM(vlm.model, vlm.processor, vlm.name)
    finally:
        vlm.model.delete_adapter("further")
        tuner.set_adapter(own)
        for name, module in list(tuner.named_modules()):  # where the own adapter has nothing, peft leaves an empty shell
            if hasattr(module, "lora_A") and not module.lora_A:
                tuner.set_submodule(name, module.base_layer)
        for name in ("forward", "_original_forward"):  # which a Trainer in bfloat16 wraps
            vars(vlm.model).pop(name, None)
        vars(vlm.model).update(forward)
        vlm.model.requires_grad_(False).eval()


def write_model(vlm: VLM, out: Path) -> None:
    """Write the whole model, its adapter merged into its weights, with its processor, as a checkpoint for `load`; `vlm` is used up.

    Raises UserError where `out` exists already.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or remove it.")
    whole = vlm.model.merge_and_unload() if hasattr(vlm.model, "merge_and_unload") else vlm.model
    with written_whole(out) as folder, quiet():
        whole.save_pretrained(folder)
        vlm.processor.save_pretrained(folder)


def unfreeze(vlm: VLM, modules: Sequence[str]) -> VLM:
    """The same VLM, of which the weights of these modules themselves, and no others, are to be trained (in place)."""
    vlm.model.requires_grad_(False)
    for name in modules:
        vlm.model.get_submodule(name).requires_grad_(True)
    return VLM(vlm.model, vlm.processor, vlm.name)


def freeze_copy(vlm: VLM, layers: int) -> None:
    """Keep a frozen copy of the network as it is now, cut behind its layer `layers`: `reference` of a fully fine-tuned model."""
    frozen = copy.deepcopy(vlm.model).requires_grad_(False).eval()
    decoder = frozen.get_decoder()
    decoder.layers = decoder.layers[:layers]
    vlm.model.frozen_copy = [frozen]  # in a list, so that it is no submodule: neither trained nor saved
