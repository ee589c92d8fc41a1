import itertools
import json
import time

import pytest
import torch

from myna.errors import DeviceError, UsageError
from myna.files import cache_folder
from myna.train.machines.ranks import Ranks
from myna.train.micro_batch import choose_micro_batch
from myna.train.recipe import Recipe

CPU = Ranks(0, 1, torch.device("cpu"))


class Clock:
    """A machine on which a pass takes a chosen time, without taking any."""

    def __init__(self, monkeypatch, seconds):
        self.now, self.seconds, self.tried = 0.0, seconds, []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def try_out(self, n):
        first = n not in self.tried
        self.tried.append(n)
        self.now += self.seconds(n) * (1 + 9 * first)  # which has to find its memory


def recipe(sequences, sequence_length=512, **more):
    return Recipe(sequence_length=sequence_length, batch_tokens=sequences * sequence_length, **more)


def test_on_a_cpu_the_fastest_is_taken(monkeypatch):
    # Every pass costs a second besides its work, and from 8 on the work is dearer: per sequence 4 is the cheapest.
    clock = Clock(monkeypatch, lambda n: 1 + n * (1 if n < 8 else 2))
    chosen = choose_micro_batch(recipe(32), CPU, clock.try_out)
    assert (chosen.sequences, chosen.reason) == (4, "the fastest of 1, 2, 4, 8")
    assert max(clock.tried) == 8  # and nothing beyond was tried: it might not fit


def test_short_passes_are_repeated_until_a_busy_machine_matters_no_more(monkeypatch):
    passes = itertools.count()
    # Four of five passes are slow by what else runs; undisturbed, all at once is the fastest.
    clock = Clock(monkeypatch, lambda n: 1e-3 * (1 + n) * (1 if next(passes) % 5 == 4 else 7))
    assert choose_micro_batch(recipe(8), CPU, clock.try_out).sequences == 8
    assert len(clock.tried) <= 4 * (3 + 30)


def test_ranks_of_different_speed_make_the_same_number_of_passes(monkeypatch):
    """A sharded model's passes are made together: a rank that makes one more waits for the others for ever."""
    numbers = []
    monkeypatch.setattr(Ranks, "from_main", lambda self, value: value)
    for own, of_the_other in ((0.001, 0.1), (0.1, 0.001)):
        clock = Clock(monkeypatch, lambda n, own=own: own)
        monkeypatch.setattr(Ranks, "sum_", lambda self, tensor, more=of_the_other: tensor + more)
        choose_micro_batch(recipe(8), Ranks(0, 2, torch.device("cpu")), clock.try_out, f"a rank of {own} s")
        numbers.append(len(clock.tried))
    assert numbers[0] == numbers[1]


def test_a_cpu_takes_what_it_has_memory_for(monkeypatch):
    clock = Clock(monkeypatch, lambda n: n / 2**n)  # the more, the faster

    def try_out(n):
        if n > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")
        clock.try_out(n)

    said = []
    chosen = choose_micro_batch(recipe(32), CPU, try_out, say=said.append)
    assert (chosen.sequences, chosen.reason) == (4, "the fastest of 1, 2, 4, 8")
    assert "--micro-batch" in said[0]


def test_a_cpu_too_small_for_the_least_says_so(monkeypatch):
    def try_out(n):
        raise MemoryError

    with pytest.raises(DeviceError, match="not even 4 sequences of 128 tokens fits the memory of cpu"):
        choose_micro_batch(recipe(8, sequence_length=128), CPU, try_out)


def test_a_defect_is_not_a_lack_of_memory():
    def try_out(n):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        choose_micro_batch(recipe(8), CPU, try_out)


def test_a_gain_too_small_is_not_worth_the_memory(monkeypatch):
    clock = Clock(monkeypatch, lambda n: n * (1 - 0.001 * n))
    assert choose_micro_batch(recipe(32), CPU, clock.try_out).sequences == 1


def test_only_what_divides_and_is_no_crumb_is_tried(monkeypatch):
    clock = Clock(monkeypatch, lambda n: 1.0)
    assert choose_micro_batch(recipe(12, sequence_length=128), CPU, clock.try_out).sequences == 12
    assert sorted(set(clock.tried)) == [4, 6, 12]


def test_what_was_found_is_remembered_for_the_same_run_alone(monkeypatch):
    clock = Clock(monkeypatch, lambda n: 1.0)
    first = choose_micro_batch(recipe(4), CPU, clock.try_out, "one processor")
    clock.tried.clear()
    again = choose_micro_batch(recipe(4), CPU, clock.try_out, "one processor")
    assert again.sequences == first.sequences == 4
    assert again.reason == "the fastest here, as found before"
    assert clock.tried == []
    choose_micro_batch(recipe(4), CPU, clock.try_out, "another processor")
    assert clock.tried != []
    clock.tried.clear()
    choose_micro_batch(recipe(4, n_layer=2), CPU, clock.try_out, "one processor")
    assert clock.tried != []


@pytest.mark.parametrize("content", ["{", "[]", "null", "[" * 200_000])
def test_a_memory_that_cannot_be_read_is_made_again(monkeypatch, content):
    clock = Clock(monkeypatch, lambda n: 1.0)
    path = cache_folder() / "micro_batch.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert choose_micro_batch(recipe(4), CPU, clock.try_out).sequences == 4
    assert list(json.loads(path.read_bytes()).values()) == [4]


@pytest.mark.parametrize("nonsense", [0, -2, 3, "4", True])
def test_a_remembered_number_that_cannot_be_is_not_taken(monkeypatch, nonsense):
    clock = Clock(monkeypatch, lambda n: 1.0)
    choose_micro_batch(recipe(4), CPU, clock.try_out)
    path = cache_folder() / "micro_batch.json"
    path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_bytes()), nonsense)))
    assert choose_micro_batch(recipe(4), CPU, clock.try_out).reason == "the fastest of 1, 2, 4"


def test_a_number_asked_for_is_taken_untried(monkeypatch):
    clock = Clock(monkeypatch, lambda n: 1.0)
    chosen = choose_micro_batch(recipe(4, micro_batch=2), CPU, clock.try_out)
    assert (chosen.sequences, chosen.reason, clock.tried) == (2, "asked for", [])


class Gpu(Clock):
    """A GPU that holds so many sequences. Its work takes its time after the call, and shows when it is waited for."""

    def __init__(self, monkeypatch, holds, seconds):
        super().__init__(monkeypatch, seconds)
        self.holds, self.ranks, self.under_way = holds, Ranks(0, 1, torch.device("cuda")), 0.0
        monkeypatch.setattr(torch, "tensor", lambda value, device: torch.full((1,), value[0]))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "synchronize", self.wait)

    def wait(self, device):
        self.now, self.under_way = self.now + self.under_way, 0.0

    def try_out(self, n):
        if n > self.holds:
            self.tried.append(n)
            raise torch.OutOfMemoryError
        before = self.now
        super().try_out(n)
        self.now, self.under_way = before, self.under_way + self.now - before


def test_on_a_gpu_the_fastest_is_taken_and_remembered(monkeypatch):
    gpu = Gpu(monkeypatch, holds=100, seconds=lambda n: max(4, n))  # with fewer than 4, a part of it is idle
    chosen = choose_micro_batch(recipe(64), gpu.ranks, gpu.try_out)
    assert (chosen.sequences, chosen.reason) == (4, "the fastest of 1, 2, 4, 8")
    gpu.tried.clear()
    again = choose_micro_batch(recipe(64), gpu.ranks, gpu.try_out)
    assert (again.sequences, again.reason) == (4, "the fastest here, as found before")
    assert gpu.tried == [4]  # whether it still fits


def test_what_a_gpus_memory_limits_is_measured_again_next_time(monkeypatch):
    gpu = Gpu(monkeypatch, holds=5, seconds=lambda n: 100 + n)
    chosen = choose_micro_batch(recipe(16), gpu.ranks, gpu.try_out)
    assert (chosen.sequences, chosen.reason) == (4, "the fastest of 1, 2, 4, 8")
    gpu.holds = 100  # whoever else was on it is gone
    assert choose_micro_batch(recipe(16), gpu.ranks, gpu.try_out).sequences == 16
    gpu.holds = 3  # and back
    assert choose_micro_batch(recipe(16), gpu.ranks, gpu.try_out).sequences == 2
    gpu.holds = 100
    gpu.tried.clear()
    assert choose_micro_batch(recipe(16), gpu.ranks, gpu.try_out).sequences == 16
    assert gpu.tried == [16]


def test_libraries_below_torch_say_it_in_their_own_words(monkeypatch):
    gpu = Gpu(monkeypatch, holds=16, seconds=lambda n: 1)

    def try_out(n):
        if n > 4:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        gpu.try_out(n)

    assert choose_micro_batch(recipe(16), gpu.ranks, try_out).sequences == 4


@pytest.mark.parametrize("sequences", [1, 2])
def test_a_gpu_too_small_for_one_sequence_says_so(monkeypatch, sequences):
    gpu = Gpu(monkeypatch, holds=0, seconds=lambda n: 1)
    with pytest.raises(DeviceError, match="not even one sequence of 512 tokens"):
        choose_micro_batch(recipe(sequences), gpu.ranks, gpu.try_out)


def test_a_batch_that_does_not_divide_names_the_nearest():
    with pytest.raises(UsageError, match="give --batch-tokens 1,024 or 2,048"):
        choose_micro_batch(recipe(3), Ranks(0, 2, torch.device("cpu")), lambda n: None)
