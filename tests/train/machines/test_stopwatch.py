import pytest
import torch

from myna.train.machines import stopwatch
from myna.train.machines.stopwatch import Stopwatch

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved on by hand."""
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_parts_add_up_and_one_may_stand_in_another(clock):
    watch = Stopwatch(CPU)
    for _ in range(2):
        with watch.part("all"):
            clock(1.0)
            with watch.part("a share"):
                clock(0.25)
        clock(100.0)
    assert watch.take() == {"a share": 0.5, "all": 2.5}
    assert watch.take() == {}


def test_what_fails_is_not_a_time(clock):
    watch = Stopwatch(CPU)
    with pytest.raises(ZeroDivisionError), watch.part("all"):
        clock(1 / 0)
    assert watch.take() == {}


@pytest.fixture
def events(monkeypatch):
    """Events of a GPU that passes each a second after the one before, and only when it is waited for."""
    made = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing
            self.at, self.passed = None, False

        def record(self):
            made.append(self)
            self.at = len(made)

        def synchronize(self):
            for event in made[: self.at]:
                event.passed = True

        def elapsed_time(self, ended):
            assert self.passed
            assert ended.passed
            return 1e3 * (ended.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    return made


def test_on_cuda_it_waits_when_the_seconds_are_taken_and_not_before(events):
    watch = Stopwatch(CUDA)
    watch.on = True
    with watch.part("all"), watch.part("a share"):
        pass
    assert len(events) == 4
    assert not any(event.passed for event in events)
    assert watch.take() == {"a share": 1.0, "all": 3.0}
    assert watch.take() == {}


def test_at_first_only_a_cpu_is_timed(events):
    for device in (CUDA, torch.device("mps")):
        watch = Stopwatch(device)
        with watch.part("all"):
            pass
        assert watch.take() == {}
    assert events == []
