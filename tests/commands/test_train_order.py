"""`--order sequential` on four sorted shards: the loss jumps at their edges. Shuffled, it does not."""

import json
import random
import statistics

import pytest

from myna import Tokenizer
from myna.data.prepare import prepare

STEPS, AROUND, BATCH = 30, 20, 256  # steps of a shard; steps before and after an edge; ids of a step
ALPHABETS = ("abcdefgh", "ijklmnop", "qrstuvwx", "01234567")


@pytest.fixture(scope="module")
def four_shards(tmp_path_factory):
    """Each of another alphabet, in letters drawn at random, and so long that every thirtieth step is an edge."""
    folder = tmp_path_factory.mktemp("four")
    draw, n_ids = random.Random(0), STEPS * BATCH
    for number, letters in enumerate(ALPHABETS):
        text = "".join(draw.choices(letters, k=n_ids - 1))  # a document begins with an end of text
        (folder / f"{number}.txt").write_text(text)
    files = [str(folder / f"{number}.txt") for number in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        found = prepare(
            files, folder / "data", Tokenizer.bytes(), val_fraction=0, shard_tokens=n_ids, workers=1
        )
    assert [shard.tokens for shard in found.train.shards] == [n_ids] * 4
    return folder / "data"


def jumps(run):
    """At each edge, the mean loss of the steps after it less that of the steps before."""
    losses = [record["train_loss"] for record in map(json.loads, run.metrics_path.read_text().splitlines())
              if "train_loss" in record]  # fmt: skip
    mean = statistics.fmean
    return [
        mean(losses[edge : edge + AROUND]) - mean(losses[edge - AROUND : edge])
        for edge in range(STEPS, len(losses), STEPS)
    ]


def test_the_loss_jumps_at_the_edges_of_sorted_shards_alone(train, four_shards, tmp_path, monkeypatch):
    monkeypatch.setattr("myna.commands.train_end.finish", lambda *_: None)  # no report
    more = [
        "--data",
        four_shards,
        "--n-layer",
        1,
        "--micro-batch",
        8,
        "--learning-rate",
        0.01,
        "--warmup-steps",
        2,
        "--dropout",
        0,
    ]
    sequential = jumps(train(tmp_path / "sequential", 4 * STEPS, *more, "--order", "sequential"))
    shuffled = jumps(train(tmp_path / "shuffled", 4 * STEPS, *more))
    assert len(sequential) == len(shuffled) == 3
    assert min(sequential) > 0.2
    assert max(shuffled) < 0.05
