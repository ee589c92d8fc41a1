"""The flags of every command that takes a MODEL, and how they open it."""

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from myna.errors import ModelError, UsageError
from myna.run import Run
from myna.settings import DeviceName, PrecisionName, WeightsName
from myna.store.here import here
from myna.store.records import fetch_records_if_any

if TYPE_CHECKING:
    from myna.device import Precision
    from myna.generate.engine import Engine
    from myna.model.open import Opened
    from myna.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelFlags:
    """A model and its tokenizer. A command's dataclass holds it as `Annotated[ModelFlags, tyro.conf.arg(name="")]`."""

    model: tyro.conf.Positional[str]
    """A run folder (its newest checkpoint), a checkpoint, a Hugging Face GPT-2 folder, the URL of one of these, or a
    hub name such as gpt2."""
    tokenizer: str | None = None
    """gpt2, bytes, or a tokenizer's folder or file, for a model that has none beside it. Default: the model's own."""


@dataclass(frozen=True, kw_only=True)
class RunningFlags:
    """How a command computes with its models."""

    tokenizer: str | None = None
    """gpt2, bytes, or a tokenizer's folder or file, for a model that has none beside it. Default: the model's own."""
    device: DeviceName = "auto"
    """Where to compute."""
    weights: WeightsName = "auto"
    """How weights are stored: bf16 and fp16 are half the bytes, int8 a quarter for a little loss. auto: fp16 to
    write texts on a CPU without AMX, if that CPU is fast in fp16; else bf16, if the device multiplies in bf16; else
    fp32. auto leaves out a kind that can't hold the largest weight."""
    precision: PrecisionName = "auto"
    """The dtype of products with fp32 weights; auto chooses as in training. If you set it, the weights stay fp32."""


@dataclass(frozen=True, kw_only=True)
class RunningModelFlags(RunningFlags):
    """The same, for one model."""

    model: tyro.conf.Positional[str]
    """A run folder (its newest checkpoint), a checkpoint, a Hugging Face GPT-2 folder, the URL of one of these, or a
    hub name such as gpt2."""

    def run(self) -> Run:
        """The run that MODEL may be; it need not exist."""
        return Run(here(self.model, fetch_records_if_any, ModelError))


def open_on_cpu(flags: ModelFlags) -> "tuple[Opened, Tokenizer]":
    """The model on the CPU, and its tokenizer.

    Raises:
        UsageError: the name is empty. Others: see `open_model` and `Opened.tokenizer_or`.
    """
    from myna.model.open import open_model

    opened = open_model(checked_name(flags.model))
    return opened, opened.tokenizer_or(flags.tokenizer)


@dataclass(frozen=True)
class Running:
    """A model ready to compute.

    Attributes:
        precision: the dtype of matrix products, if the weights are fp32. If they are stored in fewer bytes: fp32, for
            everything but the products with these weights.
        weights: how they are to be stored: fp32, bf16, fp16 or int8.
        why: for people: why so.
    """

    opened: "Opened"
    tokenizer: "Tokenizer"
    precision: "Precision"
    weights: "WeightsName"
    why: str

    def store(self) -> None:
        """Stores the weights as `weights` says.

        Raises:
            ModelError: see `store_weights`.
        """
        from myna.model.quantize import store_weights

        store_weights(self.opened.model, self.weights)


def open_to_run(model: str, flags: RunningFlags, *, generates: bool = True) -> Running:
    """The model on its device, its tokenizer, and how to compute. Its weights are as read, until `store`.

    Args:
        generates: whether it will write texts, which decides what `auto` weights are; else it scores.

    Raises:
        DeviceError: this machine does not have the device, the precision or the weights. UsageError: flags that
        contradict each other. Others: see `open_on_cpu`.
    """
    from myna.device import apply_precision, resolve_device, resolve_precision
    from myna.model.open import open_model
    from myna.model.quantize import largest_weight, resolve_weights

    name, device = checked_name(model), resolve_device(flags.device)
    if flags.precision == "auto":
        weights, why = resolve_weights(flags.weights, device, generates=generates)
    elif flags.weights in ("auto", "fp32"):
        weights, why = "fp32", "--precision is of fp32 weights"
    else:
        raise UsageError(
            f"--precision {flags.precision} is of fp32 weights, and --weights is {flags.weights}; give one of the two"
        )
    # What the device can't do is refused before the model is read.
    resolve_precision(flags.precision if weights == "fp32" else "fp32", device)
    opened = open_model(name, device)
    if flags.weights == "auto" and weights != "fp32":
        largest = largest_weight(opened.model)
        # Of weights that are not finite, `store` names the tensor.
        if math.isfinite(largest):
            weights, why = resolve_weights("auto", device, generates=generates, largest=largest)
    precision = resolve_precision(flags.precision if weights == "fp32" else "fp32", device)
    apply_precision(precision, device)
    return Running(opened, opened.tokenizer_or(flags.tokenizer), precision, weights, why)


def compile_step(engine: "Engine") -> None:
    """Compiles the step of several texts, or says why that failed."""
    failure = engine.compile_step()
    if failure:
        warnings.warn(f"torch.compile failed, writing without it: {failure}", stacklevel=2)


def checked_name(model: str) -> str:
    """MODEL, unless it is empty: as a path, that would be the folder we are in."""
    if not model:
        raise UsageError(
            "MODEL is an empty name; name a run, a checkpoint, a folder or a hub name such as gpt2"
        )
    return model
