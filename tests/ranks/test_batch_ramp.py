"""Several processes train on a batch that grows what one would."""

import pytest

from myna.run import Run


@pytest.mark.slow
def test_real_ranks_agree(small_run_with, launch, tmp_path):
    records = []
    for ranks, micro_batch in ((1, 4), (2, 2)):
        more = ("--micro-batch", micro_batch, "--steps", 12, "--dropout", 0, "--batch-tokens", 512)
        ramp = ("--batch-ramp-tokens", 1500, "--batch-ramp-start-tokens", 128)
        run = launch(small_run_with(*more, *ramp), tmp_path / str(ranks), ranks=ranks)
        assert run.wait(240) == 0, run.said()
        records.append([record for record in Run(run.out).metrics() if "train_loss" in record])
    one, two = records
    assert [record["tokens"] for record in one] == [record["tokens"] for record in two]
    assert one[0]["tokens"] == 128
    assert one[-1]["tokens"] - one[-2]["tokens"] == 512
    for key in ("train_loss", "grad_norm"):
        assert [r[key] for r in one] == pytest.approx([r[key] for r in two], rel=1e-4)
