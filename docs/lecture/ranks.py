"""Data-parallel training by hand: each rank computes the gradient of its rows, and an all-reduce adds them up.

    torchrun --standalone --nproc-per-node 2 docs/lecture/ranks.py

Without torchrun it runs as the only rank. What rank 0 prints at the end is the same for 1, 2, 4 or 8 ranks.
"""

import os

import torch
import torch.distributed as dist

ROWS, WIDTH = 8, 4


def main() -> None:
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(
        os.environ.get("LOCAL_RANK", 0)
    )  # on a machine with GPUs: the number of this process's GPU
    if world_size > 1:
        dist.init_process_group("gloo")  # "nccl" on GPUs

    # The same seed on every rank: the same weights and the same batch, of which each rank takes its rows.
    torch.manual_seed(0)
    weights = torch.randn(WIDTH, requires_grad=True)
    inputs, targets = torch.randn(ROWS, WIDTH), torch.randn(ROWS)
    mine = slice(rank * ROWS // world_size, (rank + 1) * ROWS // world_size)

    loss = ((inputs[mine] @ weights - targets[mine]) ** 2).sum() / ROWS  # the rows of all ranks
    loss.backward()
    assert weights.grad is not None
    said = f"RANK={rank} LOCAL_RANK={local_rank} WORLD_SIZE={world_size} rows {mine.start} to {mine.stop - 1}"
    gradient = ", ".join(f"{value:.3f}" for value in weights.grad)
    lines: list[str | None] = [f"{said}: my gradient {gradient}"]

    if world_size > 1:
        dist.all_reduce(weights.grad)  # adds up; every rank gets the sum
        gathered: list[str | None] = [None] * world_size
        dist.all_gather_object(gathered, lines[0])
        lines = gathered
        dist.destroy_process_group()
    if rank == 0:  # one speaks for all
        print(*lines, sep="\n")
        print("the gradient that every rank has now:", ", ".join(f"{value:.3f}" for value in weights.grad))


if __name__ == "__main__":
    main()
