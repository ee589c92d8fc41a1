"""What other models reached, and which runs may be held against it: OpenAI's GPT-2 and GPT-3, and llm.c's own run.

`evaluate` draws these lines, the server's page too.

A loss per token says nothing across tokenizers or texts. So a loss of GPT-2's, and llm.c's curve, apply only to the
text that they were measured on, in GPT-2's tokens. The datasets say what a run was trained on; recipe.json keeps their
words as `trained_on`. Runs of earlier versions lack that record, so nobody knows whether a value applies, and it is not
drawn. Another project's files don't say which text they hold. Where their format and their names are those that llm.c's
or build-nanogpt's scripts write, they are taken for what those scripts make.

HellaSwag's values apply to a network of the same size, in GPT-2's tokens, over all 10,042 items.

CORE's values apply to any model: its tasks count right answers, whatever the tokens.

Sources: build-nanogpt's notebook (GPT-2 on FineWeb-Edu, and on HellaSwag, computed); llm.c's dev/vislog.ipynb (GPT-2 on
FineWeb's validation shard, computed); GPT-3, arXiv:2005.14165, table H.1 (published); for CORE nanochat's notebook
dev/estimate_gpt3_core.ipynb (GPT-2, computed); `myna.reference_curves`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from myna.run import LOG_KEY
from myna.text.tokenizer import Tokenizer

# OpenAI's GPT-2 on the validation shard of a corpus, nats per token: corpus -> (its name, size's name -> loss).
GPT2_LOSSES = {
    "fineweb-edu": ("FineWeb-Edu", {"124M": 3.2924}),
    "fineweb": ("FineWeb", {"124M": 3.4250, "350M": 3.0831, "774M": 3.0006, "1558M": 2.8313}),
}
# Files of other projects by format and the beginning of their validation files' names -> the corpus.
WRITTEN_BY = {
    ("llm.c", "fineweb_val_"): "fineweb",
    ("llm.c", "edu_fineweb_val_"): "fineweb-edu",
    ("build-nanogpt", "edufineweb_val_"): "fineweb-edu",
}
# Within so many nats of llm.c's curve a run is on track, where the validation text is the same. Half way, at 5.2
# billion tokens, that is what 9% more tokens bring. It is too little for a fault that matters, and more than rounding,
# the seed, and a learning rate that ends at 10% (GPT-3's) instead of 0 (llm.c's) should make.
SAME_TEXT_NATS = 0.02
# Where the validation text is another sample of the same corpus, chosen by hash and not as llm.c's first shard: some
# documents are harder than others.
OTHER_TEXT_NATS = 0.05
# In the opening, where a loss falls steeply, a run is also on track while it is within this share of its tokens.
ON_TRACK_TOKENS = 0.05
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
    """GPT-2's loss that may stand beside a run's.

    Attributes:
        value: nats per token; None where none applies: another unit, or another text.
        label: whose it is.
        why: a sentence for a person: why it applies, or why not.
        tolerance: nats within which two models count as level, since validation texts differ.
    """

    value: float | None
    label: str
    why: str
    tolerance: float = OTHER_TEXT_NATS

    @property
    def applies(self) -> bool:
        """Whether there is one."""
        return self.value is not None


@dataclass(frozen=True)
class CurveReference:
    """Whether llm.c's curve may stand beside a run's.

    Attributes:
        tolerance: nats within which a run is on track; None where the curve doesn't apply.
        same_text: the validation text is the same, token by token.
        why: a sentence for a person: why it applies, or why not.
    """

    tolerance: float | None
    same_text: bool
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


@dataclass(frozen=True)
class _Text:
    """What a run was trained on.

    Attributes:
        corpus: the one corpus, in GPT-2's tokens; None for anything else.
        llmc: the files are llm.c's own.
        why: where there is no corpus, a sentence that says so.
        other: where there is no corpus, but a text, what it is.
    """

    corpus: str | None
    llmc: bool = False
    why: str = ""
    other: str = ""

    def missing(self, what: str) -> str:
        """Why nothing compares: the sentence, or that the text is another one than `what`."""
        return self.why or f"Trained on {self.other}; {what} alone."


def _text(recipe: Mapping[str, Any]) -> _Text:
    datasets = trained_on(recipe)
    if not datasets and LOG_KEY in recipe:
        return _Text(None, why="A log does not say what it was trained on; import it with --corpus.")
    if not datasets:
        return _Text(None, why="Its recipe.json does not record what it was trained on.")
    if len(datasets) != 1:
        return _Text(None, other="several datasets")
    stated, written = datasets[0].get("corpus"), _written_by(datasets[0])
    corpus = stated[0] if isinstance(stated, list) and len(stated) == 1 else written
    if not isinstance(corpus, str) or corpus not in GPT2_LOSSES:
        names = [name for name in stated if isinstance(name, str)] if isinstance(stated, list) else []
        return _Text(None, other=", ".join(names) or "text that its dataset does not name")
    if datasets[0].get("tokenizer") != gpt2_sha256():
        return _Text(None, why="Its tokens are not GPT-2's, and a loss per token depends on the tokens.")
    return _Text(corpus, llmc=written is not None and datasets[0].get("format") == "llm.c")


def _written_by(dataset: Mapping[str, Any]) -> str | None:
    """The corpus that the format and the names of another project's files stand for; None where they stand for none."""
    files = dataset.get("val_files")
    if not isinstance(files, list) or not files:
        return None
    for (kind, start), corpus in WRITTEN_BY.items():
        if dataset.get("format") == kind and all(str(name).startswith(start) for name in files):
            return corpus
    return None


def loss_reference(recipe: Mapping[str, Any]) -> LossReference:
    """GPT-2's loss in the same unit on the same text as a run's: its tokens, and a corpus on which it is known.

    The value is that of the run's size; of 124M where the run has another, or none is known.

    >>> loss_reference({"trained_on": [{"corpus": ["pydoc"], "tokenizer": None}]}).applies
    False
    """
    text = _text(recipe)
    if text.corpus is None:
        known = " and ".join(sorted(name for name, _ in GPT2_LOSSES.values()))
        return LossReference(None, "GPT-2", text.missing(f"GPT-2's loss is known on {known}"))
    name, losses = GPT2_LOSSES[text.corpus]
    size = _size(recipe)
    size = size if size in losses else "124M"
    same = text.llmc and text.corpus == "fineweb"
    return LossReference(
        losses[size],
        f"GPT-2 {size} on {name}",
        f"Same text ({name}), same tokens (GPT-2's).",
        SAME_TEXT_NATS if same else OTHER_TEXT_NATS,
    )


def curve_reference(recipe: Mapping[str, Any]) -> CurveReference:
    """Whether llm.c's GPT-2 124M on FineWeb is the same experiment as a run.

    >>> curve_reference({"n_layer": 4, "n_embd": 256}).tolerance is None
    True
    """
    if _size(recipe) != "124M" or recipe.get("network", "gpt2") != "gpt2":
        return CurveReference(None, False, "llm.c's curve is of GPT-2 124M, and this is another network.")
    if recipe.get("sequence_length", 1024) != 1024:
        return CurveReference(
            None, False, "llm.c's curve is of sequences of 1,024 tokens, and these are others."
        )
    text = _text(recipe)
    if text.corpus is None:
        return CurveReference(None, False, text.missing("llm.c's curve is known on FineWeb"))
    if text.corpus != "fineweb":
        name = GPT2_LOSSES[text.corpus][0]
        return CurveReference(None, False, f"Trained on {name}; llm.c's curve is known on FineWeb alone.")
    if text.llmc:
        return CurveReference(SAME_TEXT_NATS, True, "Same network, same validation text (llm.c's own shard).")
    return CurveReference(
        OTHER_TEXT_NATS,
        False,
        "Same network, same corpus (FineWeb); the validation text is another sample of it.",
    )


def _size(recipe: Mapping[str, Any]) -> str | None:
    """The name of GPT-2's size that a run has; None for another."""
    try:
        return HELLASWAG[recipe.get("n_layer", 0), recipe.get("n_embd", 0)][0]
    except (KeyError, TypeError):  # TypeError: a recipe.json that somebody has written by hand
        return None


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
    if LOG_KEY in recipe and _size(recipe) is None:
        return HellaSwagReference(None, "A log does not say how large the model was; import it with --size.")
    if tokenizer_of(recipe) != "gpt2" and tokenizer_of(recipe) != gpt2_sha256():
        return HellaSwagReference(
            None, "Its tokens are not GPT-2's, and a mean per token depends on the tokens."
        )
    name = _size(recipe)
    if name is None:
        layers, width = recipe.get("n_layer", 0), recipe.get("n_embd", 0)
        return HellaSwagReference(None, f"No GPT-2 has {layers} layers of width {width}.")
    size = next(row for row in HELLASWAG.values() if row[0] == name)
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
