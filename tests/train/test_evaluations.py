import contextlib
from dataclasses import replace

import pytest
import torch

from myna.errors import UsageError
from myna.train.evaluations import Evaluation, Evaluations, StopAskedError
from myna.train.machines.ranks import Ranks

ALONE = Ranks(0, 1, torch.device("cpu"))


class Made:
    """Evaluations that note when they run, of a run of 10 steps: every 4 and every 5."""

    def __init__(self, batches=0):
        self.ran, self.batches, self.networks = [], batches, 0
        self.all = Evaluations(
            [self.one("fours", 4), self.one("fives", 5), self.one("never", 0)], self.network, ALONE, 10
        )

    def one(self, name, every):
        def function(network, step, before_batch):
            for _ in range(self.batches):
                before_batch()
            self.ran.append((name, step))
            return {name: float(step)} if name == "fours" else None

        return Evaluation(name, every, function, recorded=lambda step: (name, step) in self.ran)

    @contextlib.contextmanager
    def network(self):
        self.networks += 1
        yield None

    def run(self, step, **options):
        return list(self.all.run(step, options.pop("stop_asked", lambda: False), **options))


def test_due_at_the_start_at_multiples_and_at_the_end():
    made = Made()
    results = [result for step in range(11) for result in made.run(step)]
    assert made.ran == [
        ("fours", 0),
        ("fives", 0),
        ("fours", 4),
        ("fives", 5),
        ("fours", 8),
        ("fours", 10),
        ("fives", 10),
    ]
    assert results == [("fours", {"fours": float(step)}) for step in (0, 4, 8, 10)]
    assert made.networks == 5  # and where nothing is due no network is made for it


def test_what_is_not_on_the_disk_is_missing():
    made = Made()
    made.ran.append(("fours", 10))
    assert [e.name for e in made.all.missing(10)] == ["fives"]
    assert made.all.missing(7) == []
    made.run(10, only=made.all.missing(10))
    assert made.ran == [("fours", 10), ("fives", 10)]
    assert made.all.missing(10) == []


@pytest.mark.parametrize(("asked_at", "ran"), [(1, []), (3, []), (4, [("fours", 0)])])
def test_a_stop_ends_them_before_the_next_batch(asked_at, ran):
    made, asked = Made(batches=2), []

    def stop_asked():
        asked.append(1)
        return len(asked) >= asked_at

    with pytest.raises(StopAskedError):
        made.run(0, stop_asked=stop_asked)
    assert made.ran == ran
    assert len(asked) == asked_at


def test_another_ranks_stop_is_a_stop(monkeypatch):
    monkeypatch.setattr(Ranks, "sum_", lambda self, tensor: tensor + 1)
    with pytest.raises(StopAskedError):
        Made().run(0)


def test_two_of_one_name_are_refused():
    one = Made().one("validation", 1)
    with pytest.raises(UsageError, match="two evaluations are named 'validation'; rename or remove one"):
        Evaluations([one, replace(one, every_steps=2)], contextlib.nullcontext, ALONE, 10)
