"""Steps that are measured and forgotten, and what is concluded from their times. No time passes here but a fake one."""

import contextlib
import time

import pytest
import torch

from myna.device import Precision
from myna.train.build import new_network, new_stepper
from myna.train.evaluations import Evaluation
from myna.train.machines.ranks import Ranks
from myna.train.pace import evaluation_seconds, forgotten, make_step, step_seconds
from myna.train.recipe import Recipe

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def clock(monkeypatch):
    """A list whose one number is the time."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


class Machine:
    """Makes a step in `update` seconds and `each` for a micro-batch; the first takes ten times as long."""

    def __init__(self, clock, each, update):
        self.clock, self.each, self.update, self.made = clock, each, update, []

    def make(self, micro_batches):
        self.clock[0] += (self.update + micro_batches * self.each) * (1 if self.made else 10)
        self.made.append(micro_batches)


def test_whole_steps_are_made_for_the_time_there_is(clock):
    machine = Machine(clock, each=0.25, update=0.5)
    assert step_seconds(machine.make, 2, ALONE, 9.0) == (1.0, 9)
    assert machine.made == [1, 1] + [2] * 9


def test_a_step_too_long_for_that_is_told_by_shorter_ones(clock):
    machine = Machine(clock, each=2.0, update=1.0)
    assert step_seconds(machine.make, 100, ALONE, 9.0) == (201.0, 0)
    assert machine.made == [1, 1, 3]


def test_a_long_step_of_one_micro_batch_is_made_once_more(clock):
    machine = Machine(clock, each=60.0, update=1.0)
    assert step_seconds(machine.make, 1, ALONE, 2.0) == (61.0, 1)
    assert machine.made == [1, 1]


def test_even_where_there_is_no_time_to_measure(clock):
    machine = Machine(clock, each=1.0, update=1.0)
    assert step_seconds(machine.make, 4, ALONE, 0.0) == (5.0, 0)
    assert machine.made == [1, 1, 2]


def test_ranks_go_by_the_main_ranks_times(clock, monkeypatch):
    """Steps are made together: a rank that makes one more waits for the others for ever."""
    monkeypatch.setattr(Ranks, "from_main", lambda self, value: "0.5")
    made = []
    for each in (0.001, 7.0):
        machine = Machine(clock, each=each, update=0.0)
        assert step_seconds(machine.make, 1, Ranks(1, 2, torch.device("cpu")), 2.0) == (0.5, 4)
        made.append(machine.made)
    assert made[0] == made[1]


class Watched:
    """An evaluation of so many rounds, each of a second, after half a second of its own."""

    def __init__(self, clock, rounds):
        self.clock, self.rounds, self.finished = clock, rounds, False

    def function(self, network, step, before_batch):
        self.clock[0] += 0.5
        for _ in range(self.rounds):
            before_batch()
            self.clock[0] += 1.0
        self.finished = True

    def seconds(self, budget):
        evaluation = Evaluation(
            "watched", 5, self.function, lambda step: False, rounds=lambda network: self.rounds
        )
        return evaluation_seconds(evaluation, lambda: contextlib.nullcontext(None), ALONE, budget)


@pytest.mark.parametrize("rounds", [2, 4, 1000])
def test_an_evaluation_is_known_by_its_first_rounds_and_never_finished(clock, rounds):
    watched = Watched(clock, rounds)
    assert watched.seconds(budget=3.0) == rounds + 0.5
    assert clock[0] == 0.5 + min(3, rounds - 1)
    assert not watched.finished


def test_one_round_is_made_whole(clock):
    watched = Watched(clock, 1)
    assert watched.seconds(budget=0.1) == 1.5
    assert watched.finished


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_steps_that_are_forgotten_leave_no_trace(optimizer, precision):
    recipe = Recipe(
        n_layer=2, n_head=2, n_embd=16, block_size=8, sequence_length=8, batch_tokens=32, dropout=0.3,
        optimizer=optimizer, average_decay=0.9, learning_rate=0.1,
    )  # fmt: skip
    stepper = new_stepper(recipe, new_network(recipe, 50, ALONE.device), ALONE, Precision(precision, ""))
    stepper.network.eval()

    def state():
        named = {name: p.detach().clone() for name, p in stepper.network.named_parameters()}
        named |= {f"average {name}": value.clone() for name, value in stepper.average.values.items()}
        return named | {"generator": torch.get_rng_state()} | stepper.optimizer.named_state()

    def batches():
        while True:
            ids = torch.randint(50, (2, 8))
            yield ids, ids

    before, scale = state(), stepper.scaler.state_dict()
    with forgotten(stepper):
        for _ in range(3):
            make_step(stepper, batches(), 2, targets=32, learning_rate=0.1)
        within = state()
        assert stepper.optimizer.has_state()
    after = state()
    assert after.keys() == before.keys() < within.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
        assert not torch.equal(within[name], tensor), name
    assert stepper.scaler.state_dict() == scale
    assert stepper.stopwatch.take() == {}
    assert not stepper.network.training
    assert all(p.grad is None for p in stepper.network.parameters())


def test_after_a_step_nothing_can_be_forgotten():
    recipe = Recipe(n_layer=1, n_head=1, n_embd=8, block_size=8, sequence_length=8, batch_tokens=8)
    stepper = new_stepper(recipe, new_network(recipe, 50, ALONE.device), ALONE, Precision("fp32", ""))
    ids = torch.zeros(1, 8, dtype=torch.int64)
    make_step(stepper, iter([(ids, ids)]), 1, targets=8, learning_rate=0.1)
    with pytest.raises(ValueError, match="before the first"), forgotten(stepper):
        pass
