"""How the paper's models are trained and asked at their true size, by either of two protocols.

"workbench" takes each method as its own paper has it. "authors" does what the paper's authors ran, by their
code (github.com/OPTML-Group/VLM-Safety-Unlearn, commit 1f89239 of April 2026). docs/protocols.md lists the
differences and what each does. All recipes are for LoRA and for models of true size (vlm.WIDE); smaller ones
are trained with their objective's own recipe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from transformers import PreTrainedConfig

from workbench.data.example import Example
from workbench.data.readers import SAFE_PICTURE
from workbench.models.generation import Generation
from workbench.models.vlm import WIDE
from workbench.training.objectives import named
from workbench.training.settings import Settings

RETAIN = 2000  # harmless examples to unlearn with; if the safety data have fewer, general ones are added
GENERAL = 5000  # general examples in Mixed SFT
SFT_BATCH = 128  # examples per step of SFT, as VLGuard (arXiv 2402.02207)
LORA = {"rank": 128, "lora_alpha": 256}  # arXiv 2503.11832
# What LLaVA-1.5 was trained to be told first; transformers' template leaves it out. Source: the conversation
# "v1" of github.com/haotian-liu/LLaVA, which the authors ask with.
LLAVA_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)


class Recipe(NamedTuple):
    """How one of the paper's models is trained.

    Attributes:
        objective: A name in objectives.OBJECTIVES.
        general: Whether general data are added.
        lr: Learning rate.
        epochs: How often the examples are seen that `counted` names.
        hyper: Hyper-parameters of the loss.
        batch: Harmful, and as many harmless, examples per step; 0 for SFT_BATCH in the data's proportion.
        counted: "forget" or "retain": the set over which epochs are counted.
        depth: Which layer the loss looks at, as a share of all; 0 if it looks at none.
        projector: Whether the projector from vision to language is trained too.
    """

    objective: str
    general: bool
    lr: float
    epochs: int
    hyper: Mapping[str, float] = MappingProxyType({})
    batch: int = 0
    counted: str = "forget"
    depth: float = 0.0
    projector: bool = False

    @property
    def unlearns(self) -> bool:
        """Whether harmful answers are trained on."""
        return named(self.objective).unlearns


class Protocol(NamedTuple):
    """One way to make the paper's tables.

    Attributes:
        recipes: Of the rows that are trained.
        all_harmful: Whether harmful queries about VLGuard's safe pictures are forgotten too.
        longest: Tokens of an answer at most; None for the checkpoint's own limit.
        system: What a LLaVA is told first.
    """

    recipes: Mapping[str, Recipe]
    all_harmful: bool
    longest: int | None
    system: str


# Learning rate, epochs and batch of VLGuard (arXiv 2402.02207), whose post-hoc training adds general data;
# ours uses the safety data alone. The released code has no SFT.
_SFT = {"sft": Recipe("sft", True, 2e-4, 3), "sft-posthoc": Recipe("sft", False, 2e-4, 3)}
PROTOCOLS = {
    # β, c, learning rate and epochs from arXiv 2503.11832; α from the methods' own papers: 1 for NPO
    # (2404.05868), 1,200 for RMU on a model of 7B (2403.03218). Batches are what a single GPU holds.
    "workbench": Protocol(
        _SFT
        | {
            "npo": Recipe("npo", True, 1.1e-5, 1, {"beta": 0.7, "alpha": 1.0}, batch=4),
            "rmu": Recipe("rmu", True, 1.1e-5, 10, {"c": 10.0, "alpha": 1200.0}, batch=4, depth=15 / 32),
        },
        all_harmful=True,
        longest=None,
        system="",
    ),
    # scripts/v1_5/finetune_unlearn_lora.sh: 8 GPUs × 8 examples of either set, 10 epochs over 2,000 retain
    # examples, the projector at the same rate; layers are counted from 0 there, so that 15 is the sixteenth
    "authors": Protocol(
        _SFT
        | {
            "npo": Recipe(
                "npo_token_mean",
                True,
                1.1e-5,
                10,
                {"beta": 0.7, "alpha": 1.0, "own": 0.0},
                batch=64,
                counted="retain",
                projector=True,
            ),
            "rmu": Recipe(
                "rmu_all_positions",
                True,
                1.1e-5,
                10,
                {"c": 10.0, "alpha": 1.2, "own": 0.0},
                batch=64,
                counted="retain",
                depth=16 / 32,
                projector=True,
            ),
        },
        all_harmful=False,
        longest=256,
        system=LLAVA_SYSTEM,
    ),
}


def default_protocol(safety: Sequence[Example], harmful_answers: bool) -> str:
    """The authors' protocol for VLGuard with harmful answers, which it needs; else ours.

    Args:
        safety: Examples to train with.
        harmful_answers: Whether what is to be forgotten is given apart from them.
    """
    vlguard = any(example.request == SAFE_PICTURE for example in safety)
    known = harmful_answers or any(example.leak for example in safety)
    return "authors" if vlguard and known else "workbench"


def forgotten(protocol: str, examples: Sequence[Example]) -> list[Example]:
    """The harmful examples that a protocol unlearns."""
    everything = PROTOCOLS[protocol].all_harmful
    return [e for e in examples if e.harmful and (everything or e.request != SAFE_PICTURE)]


def generation_of(protocol: str, generation: Generation, config: PreTrainedConfig) -> Generation:
    """How models are asked: what is not given is the protocol's.

    Args:
        protocol: A name in PROTOCOLS.
        generation: What the user chose.
        config: The model's. The system prompt is LLaVA-1.5's own, so that it is used for no other.
    """
    own = PROTOCOLS[protocol]
    is_llava = config.model_type == "llava" and config.get_text_config().hidden_size >= WIDE
    longest = generation.max_new_tokens or own.longest
    told = generation.system_prompt or (own.system if is_llava else "")
    return dataclasses.replace(generation, max_new_tokens=longest, system_prompt=told)


def settings_of(recipe: Recipe, config: PreTrainedConfig, examples: Sequence[Example], steps: int | None) -> Settings:
    """A recipe's settings for a language model of this configuration and these examples.

    Args:
        recipe: The recipe.
        config: The language model's.
        examples: The training set.
        steps: Instead of the recipe's.
    """
    if config.hidden_size < WIDE:
        return Settings.of(recipe.objective, steps=steps)
    forget, retain = (recipe.batch, recipe.batch) if recipe.batch else _in_proportion(examples)
    hyper = dict(recipe.hyper)
    if recipe.depth:
        hyper["layer"] = max(1, round(recipe.depth * config.num_hidden_layers))
    settings = Settings.of(
        recipe.objective,
        lr=recipe.lr,
        steps=1,
        forget=forget,
        retain=retain,
        projector=recipe.projector,
        **LORA,
        **hyper,
    )
    return dataclasses.replace(settings, steps=steps or epoch_steps(recipe, examples, settings))


def epoch_steps(recipe: Recipe, examples: Sequence[Example], settings: Settings) -> int:
    """Steps for the recipe's epochs over the harmful or the harmless examples."""
    forget = recipe.counted == "forget"
    count = sum(e.harmful == forget for e in examples)
    return max(1, round(recipe.epochs * count / (settings.forget if forget else settings.retain)))


def _in_proportion(examples: Sequence[Example]) -> tuple[int, int]:
    """Harmful and harmless examples per step of SFT: as in the data, in multiples of 16, for equal parts."""
    sixteens = round(SFT_BATCH / 16 * sum(e.harmful for e in examples) / len(examples))
    forget = 16 * min(max(sixteens, 1), SFT_BATCH // 16 - 1)
    return forget, SFT_BATCH - forget
