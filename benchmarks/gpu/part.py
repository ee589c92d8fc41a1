"""A part: one measurement, whose process prints its value as JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpu.machine import is_missing

LIMIT_S = 600.0


@dataclass(frozen=True)
class Setting:
    """Where and how all parts run.

    Attributes:
        tiny: tiny networks on the CPU, to try the script itself; the figures say nothing.
        gpus: of this machine.
        hellaswag: its file; None where there is none.
    """

    tiny: bool
    gpus: int
    hellaswag: Path | None

    @property
    def device(self) -> str:
        """As `--device` takes it."""
        return "cpu" if self.tiny else "cuda"


def nothing(setting: Setting) -> str | None:
    """Needs nothing beyond what every part needs."""
    return None


@dataclass(frozen=True)
class Part:
    """One measurement.

    Attributes:
        name: as --part takes it.
        title: the first cell of its row.
        arguments: of Python; the process prints one JSON value on its standard output.
        lacks: why a machine can't run it, for people; None where it can.
        environment: variables of its process.
        limit_s: after so many seconds its process is ended.
    """

    name: str
    title: str
    arguments: Callable[[Setting], Sequence[str]]
    lacks: Callable[[Setting], str | None] = nothing
    environment: Mapping[str, str] = field(default_factory=dict)
    limit_s: float = LIMIT_S

    def command(self, setting: Setting) -> str:
        """The command line as the results show it. A part with another command is another measurement."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return " ".join([*variables, "python", *self.arguments(setting)])


def needs_transformers(setting: Setting) -> str | None:
    """For parts that compare with transformers."""
    return "transformers is not installed" if is_missing("transformers") else None


def needs_hellaswag(setting: Setting) -> str | None:
    """For parts that score HellaSwag."""
    if setting.hellaswag is None:
        return (
            "no file: no shared/data/hellaswag_val_first500.jsonl in or beside the checkout; give --hellaswag"
        )
    return None


def needs_tf32(setting: Setting) -> str | None:
    """For parts in TF32, which a tiny try has not."""
    return "a mode of CUDA GPUs" if setting.tiny else None


def needs_two_gpus(setting: Setting) -> str | None:
    """For parts that compare ranks."""
    return None if setting.gpus > 1 else "this machine has one GPU"
