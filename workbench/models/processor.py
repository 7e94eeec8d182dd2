"""Load a model's processor, completed where earlier versions of transformers left something out."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from workbench.models.architectures import ARCHITECTURES


def load_processor(source: str, config: transformers.PreTrainedConfig, remote_code: bool = False) -> Any:
    """Load a model's processor.

    Some processors have a part for videos, which needs torchvision; without torchvision, it is left out.

    Args:
        source: A folder or hub id.
        config: The model's configuration.
        remote_code: Whether Python code that ships with the model may be run.
    """
    processor_class = getattr(transformers, PROCESSOR_MAPPING_NAMES.get(config.model_type) or "", None)
    reads_videos = processor_class is not None and "video_processor" in processor_class.get_attributes()
    if reads_videos and not transformers.utils.is_torchvision_available():
        processor = _without_videos(processor_class, source)
    else:
        processor = transformers.AutoProcessor.from_pretrained(source, trust_remote_code=remote_code)
    _complete(processor, source, config)
    return processor


def _complete(processor: Any, source: str, config: transformers.PreTrainedConfig) -> None:
    """Fill in what a checkpoint leaves out, in place.

    Fine-tunes often keep their chat template with the tokenizer. Llama 3 names no padding token; what pads is
    masked, so any token will do. Old processors of LLaVA do not say how many tokens a picture takes, which
    follows from the vision tower (CLIP's has one token beside its patches).
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if not getattr(processor, "chat_template", None):
        architecture = ARCHITECTURES.get(config.model_type)
        processor.chat_template = tokenizer.chat_template or (architecture.template if architecture else None)
    if hasattr(processor, "patch_size") and hasattr(processor, "num_additional_image_tokens"):
        vision: Any = config.vision_config
        stored = type(processor).get_processor_dict(source)[0]
        processor.patch_size = processor.patch_size or vision.patch_size
        processor.vision_feature_select_strategy = (
            processor.vision_feature_select_strategy or config.vision_feature_select_strategy
        )
        if "num_additional_image_tokens" not in stored:
            processor.num_additional_image_tokens = int(vision.model_type == "clip_vision_model")


def _without_videos(processor_class: Any, source: str) -> Any:
    """A processor for pictures and text alone, of a class that would read videos too."""

    class PicturesOnly(processor_class):
        def check_argument_for_proper_class(self, name: str, argument: object) -> type:
            return type(None) if name == "video_processor" else super().check_argument_for_proper_class(name, argument)

        def apply_chat_template(self, *arguments: Any, **options: Any) -> Any:  # SmolVLM's own asks the part for videos
            return transformers.ProcessorMixin.apply_chat_template(self, *arguments, **options)

        def save_pretrained(self, folder: str | Path, **options: Any) -> None:
            for part in (self.image_processor, self.tokenizer):
                part.save_pretrained(folder, **options)
            (Path(folder) / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")

    stored = processor_class.get_processor_dict(source)[0]
    settings = {name: value for name, value in stored.items() if not isinstance(value, dict)}
    parameters = inspect.signature(processor_class.__init__).parameters
    return PicturesOnly(
        image_processor=transformers.AutoImageProcessor.from_pretrained(source, trust_remote_code=False),
        tokenizer=transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False),
        **{name: value for name, value in settings.items() if name in parameters} | {"video_processor": None},
    )
