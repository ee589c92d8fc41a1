"""The flags of every command that takes a MODEL, and how they open it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from myna.errors import ModelError, UsageError
from myna.paths import given_path
from myna.run import Run
from myna.settings import DeviceName, PrecisionName

if TYPE_CHECKING:
    from myna.device import Precision
    from myna.model.open import Opened
    from myna.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelFlags:
    """A model and its tokenizer. A command's dataclass holds it as `Annotated[ModelFlags, tyro.conf.arg(name="")]`."""

    model: tyro.conf.Positional[str]
    """A run folder (its newest checkpoint), a checkpoint, a Hugging Face GPT-2 folder, or a hub name such as gpt2."""
    tokenizer: str | None = None
    """gpt2, bytes, or a tokenizer's folder or file, for a model that has none beside it. Default: the model's own."""

    def run(self) -> Run:
        """The run that MODEL may be; it need not exist."""
        return Run(given_path(self.model, ModelError))


@dataclass(frozen=True)
class RunningModelFlags(ModelFlags):
    """The same for a command that computes with the model."""

    device: DeviceName = "auto"
    """Where to compute."""
    precision: PrecisionName = "auto"
    """What matrix products are computed in; auto as in training. Softmax is fp32 in each."""


def open_on_cpu(flags: ModelFlags) -> "tuple[Opened, Tokenizer]":
    """The model on the CPU, and its tokenizer.

    Raises:
        UsageError: the name is empty. Others: see `open_model` and `Opened.tokenizer_or`.
    """
    from myna.model.open import open_model

    opened = open_model(checked_name(flags))
    return opened, opened.tokenizer_or(flags.tokenizer)


def open_to_run(flags: RunningModelFlags) -> "tuple[Opened, Tokenizer, Precision]":
    """The model on its device, its tokenizer, and the precision to compute in.

    Raises:
        DeviceError: this machine does not have the device or the precision. Others: see `open_on_cpu`.
    """
    from myna.device import apply_precision, resolve_device, resolve_precision
    from myna.model.open import open_model

    name, device = checked_name(flags), resolve_device(flags.device)
    precision = resolve_precision(flags.precision, device)
    apply_precision(precision)
    opened = open_model(name, device)
    return opened, opened.tokenizer_or(flags.tokenizer), precision


def checked_name(flags: ModelFlags) -> str:
    """MODEL, unless it is empty: as a path, that would be the folder we are in."""
    if not flags.model:
        raise UsageError(
            "MODEL is an empty name; name a run, a checkpoint, a folder or a hub name such as gpt2"
        )
    return flags.model
