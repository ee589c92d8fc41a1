"""What a resume needs beside weights and optimizer: where the run stands, as one dataclass with a format number."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from myna.errors import CheckpointError

# 1: no number; Adam's moments in Hugging Face's layout. 2: tensors under our own names, KIND.PARAMETER.
FORMAT = 2


@dataclass
class TrainState:
    """Where a run stands. A field that an older file lacks has its default.

    Attributes:
        step: finished steps.
        samples: sequences consumed: the whole state of the data.
        tokens: targets trained on.
        optimizer_steps: updates made; fewer than `step` where fp16 skipped some.
        ended: the run ended before its last step, and is whole: `--overfit` has reached its loss.
        skipped_in_row: updates that fp16 has skipped since the last one it made.
        dataset: identifies the data.
        init_ids: ids that the model of `--init` knew; 0 where the run began with fresh weights.
        world_size: ranks that it was trained on last.
        recipe: as `Recipe.to_dict` gives it.
        rng: how dropout's randomness is made; there is no generator whose state would have to be kept.
        scaler: fp16's, empty where it is off.
        spikes: see `SpikeRule`.
    """

    dataset: str
    recipe: dict[str, Any]
    step: int = 0
    samples: int = 0
    tokens: int = 0
    optimizer_steps: int = 0
    ended: bool = False
    skipped_in_row: int = 0
    init_ids: int = 0
    world_size: int = 1
    rng: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    spikes: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def is_done(self, steps: int) -> bool:
        """Whether nothing is left to train in a run of so many steps."""
        return self.ended or self.step >= steps

    def to_dict(self) -> dict[str, Any]:
        """As train_state.json has it, the format number first: today's, whatever the state was read from."""
        return {"format": FORMAT} | dataclasses.asdict(dataclasses.replace(self, format=FORMAT))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: str) -> "TrainState":
        """The state that a train_state.json holds, of this format or an older one.

        Raises:
            CheckpointError: of a newer format, or a value that cannot be.
        """
        number = raw.get("format", 1)
        if type(number) is not int or not 1 <= number <= FORMAT:
            raise CheckpointError(
                f"{where} has format {number}, and this Myna reads up to {FORMAT}; use the version that wrote it, or "
                "a newer one"
            )
        known = {f.name: raw[f.name] for f in dataclasses.fields(cls) if f.name in raw}
        try:
            state = cls(**known | {"format": number})
        except TypeError as error:
            raise CheckpointError(f"{where}: {error}; use another checkpoint") from error
        for name in ("recipe", "rng", "scaler", "spikes"):
            if not isinstance(getattr(state, name), dict):
                raise CheckpointError(f"{where}: {name} is {getattr(state, name)!r}; use another checkpoint")
        if not isinstance(state.ended, bool):
            raise CheckpointError(f"{where}: ended is {state.ended!r}; use another checkpoint")
        if not isinstance(state.dataset, str):
            raise CheckpointError(f"{where}: dataset is {state.dataset!r}; use another checkpoint")
        for name in (
            "step",
            "samples",
            "tokens",
            "optimizer_steps",
            "skipped_in_row",
            "init_ids",
            "world_size",
        ):
            value = getattr(state, name)
            if type(value) is not int or value < 0:
                raise CheckpointError(f"{where}: {name} is {value!r}, no count; use another checkpoint")
        return state
