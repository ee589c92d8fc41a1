"""What OpenAI's models reached, and which runs may be held against it. `evaluate` draws these lines, the page too.

GPT-2's validation loss applies only to FineWeb-Edu in GPT-2's tokens: a loss per token says nothing across tokenizers
or texts. The datasets say what a run was trained on; recipe.json keeps their words as `trained_on`. Runs of earlier
versions lack that record, so nobody knows whether the value applies, and it is not drawn.

HellaSwag's values apply to a network of the same size, in GPT-2's tokens, over all 10,042 items.

CORE's values apply to any model: its tasks count right answers, whatever the tokens.

Sources: build-nanogpt's notebook (GPT-2, computed); GPT-3, arXiv:2005.14165, table H.1 (published); for CORE nanochat's
notebook dev/estimate_gpt3_core.ipynb (GPT-2, computed).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from myna.text.tokenizer import Tokenizer

# OpenAI's GPT-2 124M on FineWeb-Edu's validation shard, nats per token.
GPT2_FINEWEB_EDU_LOSS = 3.2924
# HellaSwag's accuracy, mean per token: layers and width of GPT-2 -> (size's name, GPT-2, GPT-3).
HELLASWAG = {
    (12, 768): ("124M", 0.2945, 0.337),
    (24, 1024): ("350M", 0.3752, 0.436),
    (36, 1280): ("774M", 0.4320, 0.510),
    (48, 1600): ("1558M", 0.4889, 0.547),
}
HELLASWAG_CHANCE = 0.25  # one ending of four
# CORE of OpenAI's models, by their names as above.
CORE = {"124M": 0.1139, "350M": 0.1849, "774M": 0.2146, "1558M": 0.2565}
# A part of the file is another test: it begins with ActivityNet's items, and WikiHow's come later.
HELLASWAG_ITEMS = 10_042


@dataclass(frozen=True)
class LossReference:
    """Whether GPT-2's loss may stand beside a run's.

    Attributes:
        applies: the unit and the text are the same.
        why: a sentence for a person: why it applies, or why not.
    """

    applies: bool
    why: str


@dataclass(frozen=True)
class HellaSwagReference:
    """OpenAI's accuracies that may stand beside a run's.

    Attributes:
        size: the size's name, and GPT-2's and GPT-3's accuracy at it; None where none applies.
        why: a sentence for a person: why they apply, or why not.
    """

    size: tuple[str, float, float] | None
    why: str


def loss_reference(recipe: Mapping[str, Any]) -> LossReference:
    """Whether GPT-2's loss is in the same unit on the same text as a run's: its tokens, FineWeb-Edu.

    >>> loss_reference({"trained_on": [{"corpus": ["pydoc"], "tokenizer": None}]}).applies
    False
    """
    datasets = trained_on(recipe)
    if not datasets:
        return LossReference(False, "Its recipe.json does not record what it was trained on.")
    if len(datasets) != 1:
        return LossReference(
            False, "Trained on several datasets; GPT-2's loss is known on FineWeb-Edu alone."
        )
    corpus = datasets[0].get("corpus")
    if corpus != ["fineweb-edu"]:
        names = [name for name in corpus if isinstance(name, str)] if isinstance(corpus, list) else []
        text = ", ".join(names) or "text that its dataset does not name"
        return LossReference(False, f"Trained on {text}; GPT-2's loss is known on FineWeb-Edu alone.")
    if datasets[0].get("tokenizer") != gpt2_sha256():
        return LossReference(False, "Its tokens are not GPT-2's, and a loss per token depends on the tokens.")
    return LossReference(True, "Same text (FineWeb-Edu), same tokens (GPT-2's).")


def hellaswag_reference(recipe: Mapping[str, Any], items: int | None) -> HellaSwagReference:
    """OpenAI's accuracies at a run's size, where they were measured as the run's was.

    Args:
        items: how many the run was scored on; None where it was not scored.
    """
    if items is None:
        return HellaSwagReference(None, "No HellaSwag score yet.")
    if items != HELLASWAG_ITEMS:
        return HellaSwagReference(
            None, f"Scored on {items:,} items, and OpenAI's models on all {HELLASWAG_ITEMS:,}."
        )
    if tokenizer_of(recipe) != "gpt2" and tokenizer_of(recipe) != gpt2_sha256():
        return HellaSwagReference(
            None, "Its tokens are not GPT-2's, and a mean per token depends on the tokens."
        )
    layers, width = recipe.get("n_layer", 0), recipe.get("n_embd", 0)
    try:
        size = HELLASWAG.get((layers, width))
    except TypeError:  # a recipe.json that somebody has written by hand
        size = None
    if size is None:
        return HellaSwagReference(None, f"No GPT-2 has {layers} layers of width {width}.")
    return HellaSwagReference(
        size, f"Same size ({size[0]}), same tokens (GPT-2's), all {HELLASWAG_ITEMS:,} items."
    )


def trained_on(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each dataset of a run says of itself: `corpus` and `tokenizer`, null where it can't say.

    Empty for a run of an earlier version, which did not record it.

    >>> trained_on({"trained_on": [{"corpus": ["pydoc"], "tokenizer": None}]})
    [{'corpus': ['pydoc'], 'tokenizer': None}]
    >>> trained_on({"corpus": ["pydoc"]})
    []
    """
    stored = recipe.get("trained_on")
    if not isinstance(stored, list) or not all(isinstance(about, dict) for about in stored):
        return []
    return stored


def tokenizer_of(recipe: Mapping[str, Any]) -> str:
    """The SHA-256 of a run's tokenizer where its datasets agree on one; else the name that the recipe gives it.

    The name alone does not tell two tokenizers apart: `from-data`, `train:2048`.
    """
    hashes = [about.get("tokenizer") for about in trained_on(recipe)]
    agree = bool(hashes) and isinstance(hashes[0], str) and hashes.count(hashes[0]) == len(hashes)
    return str(hashes[0] if agree else recipe.get("tokenizer"))


@lru_cache(maxsize=1)
def gpt2_sha256() -> str:
    """What identifies GPT-2's tokenizer. Kept: it takes a second to compute."""
    return Tokenizer.gpt2().sha256
