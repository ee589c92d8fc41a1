"""Several processes train on conversations, of whose scored ids they hold different numbers."""

import pytest

from myna.run import Run

T = 160
ARGUMENTS = f"""
    shakespeare-char --tokenizer from-data --n-layer 2 --n-head 2 --n-embd 32 --block-size {T} --sequence-length {T}
    --batch-tokens {8 * T} --micro-batch 2 --warmup-steps 2 --precision fp32 --device cpu --average-decay 0 --no-compile
    --eval-every 6 --sample-every 6 --checkpoint-every 3 --dropout 0.1
"""


@pytest.fixture
def arguments(conversations):
    return [*ARGUMENTS.split(), "--data", str(conversations), "--sample-prompt", "Hi\nWho are you?"]


@pytest.mark.slow
def test_real_ranks_agree(arguments, launch, tmp_path):
    losses = []
    for ranks, micro_batch in ((1, 8), (2, 4), (4, 2)):
        more = ["--micro-batch", str(micro_batch), "--steps", "6", "--dropout", "0"]
        run = launch([*arguments, *more], tmp_path / str(ranks), ranks=ranks)
        assert run.wait(240) == 0, run.said()
        records = Run(run.out).metrics()
        losses.append([[r[key] for r in records if key in r] for key in ("train_loss", "val_loss")])
    for one in losses[1:]:
        for found, expected in zip(one, losses[0], strict=True):
            assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_compiled_and_sharded_are_near_eager(arguments, launch, tmp_path):
    found = []
    for name, more in (("eager", []), ("compiled", ["--compile"]), ("fsdp", ["--shard", "fsdp"])):
        run = launch(
            [*arguments, "--steps", "4", "--dropout", "0", *more],
            tmp_path / name,
            ranks=1 + (name == "fsdp"),
        )
        assert run.wait(400) == 0, run.said()
        assert "training without" not in run.said()
        found.append([r["train_loss"] for r in Run(run.out).metrics() if "train_loss" in r])
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    assert found[2] == pytest.approx(found[0], abs=1e-5)
