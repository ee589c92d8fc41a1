import contextlib
import io

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from myna.bench import ranks as bench_ranks
from myna.bench.measure import Plan, Watcher
from myna.bench.ranks import WARM_UP_STEPS, compared, gathered, measure_ranks, step_of, timed_in_turn
from myna.bench.ranks_table import notes, print_ranks
from myna.errors import DeviceError
from myna.train.machines.ranks import Ranks
from myna.train.recipe import Recipe

RECIPE = Recipe(
    n_layer=1, n_head=2, n_embd=16, block_size=8, sequence_length=8, batch_tokens=64, precision="fp32",
    compile=False,
)  # fmt: skip
PLAN = Plan(RECIPE, 50, (), 2, 2, 2, "cpu")
ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def a_group(tmp_path):
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(autouse=True)
def freed_memory_goes(monkeypatch):
    monkeypatch.setattr("myna.bench.rungs.keep_freed_memory", lambda: True)


def test_gradients_are_summed_in_one_way_and_not_in_the_other(a_group):
    step, _ = step_of(PLAN, {"accumulate": 2, "micro_batch": 2, "vocab_size": 50}, ALONE)
    module = DistributedDataParallel(step.stepper.loss)
    step.stepper.module = module
    sums = []

    def hook(state, bucket):
        sums.append(bucket.index())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    module.register_comm_hook(None, hook)
    count = WARM_UP_STEPS + 1 + 2
    seconds = timed_in_turn(step, ALONE, count, Watcher())
    assert sums == [0] * count  # a bucket in each step of "together"
    assert [len(taken) for taken in seconds.values()] == [2, 2]
    assert all(one > 0 for taken in seconds.values() for one in taken)


def test_ranks_have_the_same_weights_and_other_batches():
    job = {"accumulate": 1, "micro_batch": 2, "vocab_size": 50}
    first, second = (step_of(PLAN, job, Ranks(rank, 1, ALONE.device))[0] for rank in (0, 1))
    assert torch.equal(first.stepper.network.wte.weight, second.stepper.network.wte.weight)
    assert not torch.equal(first.batches[0][0], second.batches[0][0])


def test_a_number_of_each_rank():
    assert gathered(torch.tensor([7]), ALONE) == [7]


def test_memory_that_runs_out_names_its_rank(monkeypatch):
    def no_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench_ranks, "machine_of", lambda device: None)
    monkeypatch.setattr(bench_ranks, "step_of", no_memory)
    with pytest.raises(
        DeviceError, match="rank 1 of 2: out of memory with 2 x 8 tokens; give a lower --micro"
    ):
        measure_ranks(PLAN, Ranks(1, 2, ALONE.device), Watcher())


FOUND = {
    "machine": {
        "device": "cpu", "name": "a chip", "threads": 1, "torch": "2.13.0", "matrix_flops": 1e9, "matrix_about": "m",
    },
    "model": {"recipe": "gpt2-124m", "n_layer": 12},
    "micro_batch": 2, "sequence_length": 8, "accumulate": 2, "tokens_per_step": 32, "why_only_ours": None, "ranks": 4,
    "compiler_failure": "no g++", "peak_memory_bytes_by_rank": [1e9, 3e9],
}  # fmt: skip


def test_the_table_has_the_rate_of_all_ranks_and_what_communication_takes(tmp_path):
    found = FOUND | compared({"together": [0.2, 0.4, 0.2], "apart": [0.15, 0.15, 1.0]}, FOUND, 1e6)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        print_ranks(found, tmp_path / "ranks.json")
    lines = [" ".join(line.split()) for line in said.getvalue().splitlines()]
    assert lines[0].startswith("gpt2-124m, 12 layers, 2 x (2 x 8) tokens a step")
    assert lines[4:6] == [
        "gradients summed 200.0 640 160 16.0%",
        "each its own 150.0 853 213 21.3%",
    ]
    assert lines[7:10] == [
        "communication takes 50.0 ms of a step (25.0%)",
        "peak memory of the rank that took most: 3.00 GB",
        "not compiled: no g++",
    ]


def test_communication_that_does_not_show_is_said_to():
    found = FOUND | compared({"together": [0.1], "apart": [0.2]}, FOUND, 1e6)
    assert "communication takes no time that shows: the steps without it took 100.0 ms more" in notes(found)
