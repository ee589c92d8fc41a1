import pytest
import torch

from myna.errors import DataError, DeviceError, UnreadableError
from myna.train.machines import ranks
from myna.train.machines.ranks import Ranks, start_ranks


def test_alone_there_is_one_rank():
    with start_ranks({}, "cpu") as here:
        assert here == Ranks(0, 1, torch.device("cpu"))
        assert here.is_main
        assert here.sum_(torch.ones(2)).tolist() == [1, 1]
        assert here.from_main("x") == "x"


def raising(error):
    raise error


@pytest.mark.parametrize(
    ("work", "kind", "says"),
    [
        (lambda: "step 7", None, "step 7"),
        (lambda: raising(DataError("no text in a.jsonl")), DataError, "no text in a.jsonl"),
        (lambda: raising(UnreadableError("x cannot be read")), UnreadableError, "x cannot be read"),
        (
            lambda: raising(OSError(5, "Input/output error", "x")),
            OSError,
            "[Errno 5] Input/output error: 'x'",
        ),
    ],
)
def test_what_the_main_rank_does_every_rank_knows(monkeypatch, work, kind, says):
    box = []
    monkeypatch.setattr(Ranks, "from_main", lambda self, value: box.append(value) or box[0])
    outcomes = []
    for rank in (0, 1):  # the other rank's own work would be a defect
        try:
            outcomes.append(Ranks(rank, 2, torch.device("cpu")).main_does(work if rank == 0 else print))
        except (DataError, UnreadableError, OSError) as error:
            outcomes.append(error)
    assert [str(outcome) for outcome in outcomes] == [says, says]
    assert [type(outcome) for outcome in outcomes] == [kind or str] * 2
    assert [getattr(outcome, "told", False) for outcome in outcomes] == [False, kind is not None]


def test_an_unreachable_rendezvous_is_told_in_seconds():
    environ = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environ.items():
            patch.setenv(key, value)
        with (
            pytest.raises(DeviceError, match="rank 1 of 2 could not join"),
            start_ranks(environ, "cpu", timeout_s=2),
        ):
            pass


def test_a_rank_that_finds_no_others_is_told_whatever_the_library_says(monkeypatch):
    def rendezvous(*_, **__):
        raise ValueError

    monkeypatch.setattr(ranks, "rendezvous", rendezvous)
    environ = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    told = r"rank 1 of 2 could not join the others within 3 s: ValueError; start it"
    with pytest.raises(DeviceError, match=told), start_ranks(environ, "cpu", 3.0):
        pass
