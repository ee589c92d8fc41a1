"""What `myna train` does between the steps: a table. A new one is a function, here or in its own file, and a line.

Each function gets what the run has, and returns an Evaluation, or None where the run has no use for it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from myna.data.mixture import Mixture
from myna.data.packing import find_conversations
from myna.data.split import Split
from myna.device import Precision
from myna.evaluate.choices import choice_sums
from myna.evaluate.continuations import n_cut, question_rounds
from myna.evaluate.hellaswag import encode_items, hellaswag_scores, read_items
from myna.evaluate.loss import (
    mixture_scores,
    validation_rounds,
    validation_scores,
    validation_sums,
    why_no_bits_per_byte,
)
from myna.evaluate.rounds import in_rounds
from myna.generate.sampling import Sampling
from myna.generate.text import stream_text
from myna.model.network import Network
from myna.progress import speak
from myna.run import Run
from myna.text.chat import USER, Message, encode_prompt, stop_ids
from myna.text.tokenizer import Tokenizer
from myna.train.evaluations import Check, Evaluation
from myna.train.machines.ranks import Ranks
from myna.train.recipe import Recipe


@dataclass(frozen=True)
class Around:
    """What an evaluation may need of its run."""

    recipe: Recipe
    run: Run
    data: Mixture
    tokenizer: Tokenizer
    ranks: Ranks
    precision: Precision
    hellaswag: Path | None

    def share(self) -> dict[str, Any]:
        """This rank's share, as the functions of `myna.evaluate` take it."""
        return {
            "rank": self.ranks.rank,
            "world_size": self.ranks.world_size,
            "autocast_dtype": self.precision.dtype,
        }

    def added(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums over the ranks: on the device for the network, then back on the CPU."""
        if self.ranks.world_size == 1:
            return sums
        return self.ranks.sum_(sums.to(self.ranks.device)).cpu()

    def in_metrics(self, key: str) -> Callable[[int], bool]:
        """Whether metrics.jsonl has that key at a step."""
        return lambda step: any(key in record for record in self.run.metrics() if record["step"] == step)


def validation(around: Around) -> Evaluation | None:
    """Loss and bits per byte on the validation split, or on those of a mixture."""
    recipe, data, tokenizer = around.recipe, around.data, around.tokenizer
    id_bytes, text_ids = tokenizer.id_bytes(), tokenizer.text_ids()
    eot, length = tokenizer.eot, recipe.sequence_length
    splits = {
        source.name: source.dataset.val for source in data.sources if can_validate(source.dataset.val, around)
    }
    if not splits or not any(data.shares[name] for name in splits):
        return None

    def validate(network: Network, step: int, before_batch: Check) -> dict[str, float]:
        sums = {
            name: around.added(
                validation_sums(
                    network,
                    val,
                    id_bytes,
                    text_ids=text_ids,
                    eot=eot,
                    sequence_length=length,
                    before_batch=before_batch,
                    **around.share(),
                )
            )
            for name, val in splits.items()
        }
        if data.is_one:
            (name,) = splits
            return validation_scores(sums[name], splits[name])
        return mixture_scores(sums, splits, data.shares)

    def rounds(network: Network) -> int:
        world = around.ranks.world_size
        return sum(validation_rounds(val, length, eot, world_size=world) for val in splits.values())

    recorded = around.in_metrics("val_loss")
    return Evaluation("validation", recipe.eval_every, validate, recorded, "eval_every", rounds)


def can_validate(val: Split, around: Around) -> bool:
    """Whether a validation split has something to score; what is missing is said."""
    length, loud = around.recipe.sequence_length, around.ranks.is_main
    if val.n_tokens < 2:
        if loud and not around.data.is_one:
            speak(f"{val.place} has nothing to score: val_loss is the mean of the other datasets")
        return False
    if val.scored is not None and not len(find_conversations(val, around.tokenizer.eot, length).starts):
        if loud:
            speak(
                f"no validation: {val.place} has no conversation whose first answer ends within {length} tokens, "
                "the sequence length"
            )
        return False
    if loud and (why := why_no_bits_per_byte(val, around.tokenizer)):
        speak(why)
    return True


def samples(around: Around) -> Evaluation | None:
    """What the model writes, on the main rank: a text, or where it learns conversations an answer to each question."""
    recipe = around.recipe
    if not recipe.sample_every:
        return None
    sampling = Sampling(max_tokens=100, temperature=recipe.sample_temperature, top_k=50, seed=recipe.seed)
    prompts = [recipe.sample_prompt]
    if around.data.has_conversations:
        prompts = [line for line in prompts[0].splitlines() if line.strip()]
        sampling = replace(sampling, stop_ids=stop_ids(around.tokenizer))

    def sample(network: Network, step: int, before_batch: Check) -> None:
        texts = []
        for prompt in prompts:
            pieces: Iterable[list[str]] = ()
            if around.ranks.is_main:
                pieces = stream_text(
                    network,
                    around.tokenizer,
                    asked(around, prompt),
                    sampling,
                    autocast_dtype=around.precision.dtype,
                    # the prompt in one step: else the other ranks would go fewer rounds
                    piece=recipe.block_size,
                )
            # At most a step a token. The other ranks go along, to agree on a stop before each.
            texts.append("".join(piece for (piece,) in in_rounds(pieces, sampling.max_tokens, before_batch)))
        if around.ranks.is_main:
            end = "\n" * around.data.has_conversations
            for prompt, text in zip(prompts, texts, strict=True):
                around.run.append_sample({"step": step, "prompt": prompt + end, "text": text})

    def recorded(step: int) -> bool:
        return any(record.get("step") == step for record in around.run.samples())

    def rounds(network: Network) -> int:
        return len(prompts) * sampling.max_tokens

    return Evaluation("samples", recipe.sample_every, sample, recorded, "sample_every", rounds)


def asked(around: Around, prompt: str) -> str | list[int]:
    """What the model goes on from."""
    if not around.data.has_conversations:
        return prompt
    return encode_prompt(around.tokenizer, [Message(USER, prompt)]).ids


def hellaswag(around: Around) -> Evaluation | None:
    """The three accuracies, where `--hellaswag` names the file."""
    if around.hellaswag is None:
        return None
    positions = around.recipe.block_size
    questions = encode_items(read_items(around.hellaswag), around.tokenizer, positions)
    if around.ranks.is_main and (count := n_cut(questions)):
        speak(
            f"{count:,} of {len(questions):,} HellaSwag items are longer than the model's {positions} positions; "
            "they lose their beginning"
        )

    def score(network: Network, step: int, before_batch: Check) -> dict[str, float]:
        sums = choice_sums(network, questions, before_batch=before_batch, **around.share())
        return hellaswag_scores(around.added(sums))

    def rounds(network: Network) -> int:
        return question_rounds(network, questions, world_size=around.ranks.world_size)

    recorded = around.in_metrics("hellaswag_acc")
    return Evaluation("hellaswag", around.recipe.hellaswag_every, score, recorded, "hellaswag_every", rounds)


EVALUATIONS: list[Callable[[Around], Evaluation | None]] = [validation, samples, hellaswag]


def evaluations(around: Around) -> list[Evaluation]:
    """Those of the table that this run has a use for."""
    made = [make(around) for make in EVALUATIONS]
    return [evaluation for evaluation in made if evaluation is not None]
