"""Several processes train on a mixture what one would."""

import pytest

from myna.run import Run


@pytest.mark.slow
def test_real_ranks_agree(small_run_with, mixture, launch, tmp_path):
    losses = []
    for ranks, micro_batch in ((1, 8), (2, 4), (4, 2)):
        more = ("--micro-batch", micro_batch, "--steps", 12, "--dropout", 0, "--eval-every", 6)
        run = launch(
            small_run_with(*mixture("small:0.7", "other:0.3"), *more), tmp_path / str(ranks), ranks=ranks
        )
        assert run.wait(240) == 0, run.said()
        records = Run(run.out).metrics()
        keys = ("train_loss", "val_loss", "val_loss/small", "val_loss/other")
        losses.append([[r[key] for r in records if key in r] for key in keys])
    assert [len(series) for series in losses[0]] == [12, 3, 3, 3]
    for one in losses[1:]:
        for found, expected in zip(one, losses[0], strict=True):
            assert found == pytest.approx(expected, abs=1e-5)
