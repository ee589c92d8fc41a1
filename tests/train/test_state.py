import json

import pytest

from myna.errors import CheckpointError
from myna.train.state import FORMAT, TrainState

WHOLE = TrainState(
    dataset="abc",
    recipe={"n_layer": 2},
    step=7,
    samples=56,
    tokens=1792,
    optimizer_steps=6,
    ended=True,
    skipped_in_row=1,
    world_size=2,
    rng={"seed": 1},
    scaler={"scale": 2.0},
    spikes={"steps": 7},
)


def test_it_goes_through_json():
    stored = json.loads(json.dumps(WHOLE.to_dict()))
    assert next(iter(stored.items())) == ("format", FORMAT)
    assert TrainState.from_dict(stored, "a file") == WHOLE


def test_a_file_of_before_there_was_a_number_has_the_defaults():
    before = TrainState.from_dict({"dataset": "abc", "recipe": {}, "step": 3, "torch_rng": "?"}, "a file")
    assert before == TrainState(dataset="abc", recipe={}, step=3, format=1)
    assert before.to_dict()["format"] == FORMAT  # it is saved in today's


@pytest.mark.parametrize("number", [FORMAT + 1, 99, 0, "2", None, 1.5, True])
def test_a_format_that_is_not_known_is_refused(number):
    with pytest.raises(
        CheckpointError, match=f"a file has format {number}, and this Myna reads up to {FORMAT}; use"
    ):
        TrainState.from_dict(WHOLE.to_dict() | {"format": number}, "a file")


@pytest.mark.parametrize(
    "name", ["step", "samples", "tokens", "optimizer_steps", "skipped_in_row", "world_size"]
)
@pytest.mark.parametrize("rubbish", [-1, 1.0, "3", None, True, [4]])
def test_what_is_no_count_is_refused(name, rubbish):
    with pytest.raises(CheckpointError, match=f"a file: {name} is .*, no count; use another checkpoint"):
        TrainState.from_dict(WHOLE.to_dict() | {name: rubbish}, "a file")


def test_whether_it_ended_is_true_or_false():
    with pytest.raises(CheckpointError, match="a file: ended is 1; use another checkpoint"):
        TrainState.from_dict(WHOLE.to_dict() | {"ended": 1}, "a file")


@pytest.mark.parametrize("name", ["dataset", "recipe"])
def test_what_has_no_default_must_be_there(name):
    stored = WHOLE.to_dict()
    del stored[name]
    with pytest.raises(CheckpointError, match=f"a file: .*{name}.*; use another checkpoint"):
        TrainState.from_dict(stored, "a file")
