"""Two ranks' ends of one connection, in one process."""

import json
import signal
import socket
import threading
import time
import weakref

import pytest
import torch
from torch.distributed import HashStore

from myna.errors import DataError, DeviceError, RankError, Stopped
from myna.signals import ENDING, Interrupted
from myna.train.machines import links as meeting
from myna.train.machines import watch as watching
from myna.train.machines.links import HELLO_BYTES, KEY, Links, meet
from myna.train.machines.ranks import Ranks
from myna.train.machines.watch import Watch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def ended(monkeypatch):
    """What the watch would have ended the process with."""
    codes = []
    monkeypatch.setattr(watching.os, "_exit", codes.append)
    monkeypatch.setattr(watching, "GRACE_S", 0.05)
    return codes


@pytest.fixture
def pair():
    """Rank 0's and rank 1's place, connected."""
    here, there = socket.socketpair()
    yield Ranks(0, 2, CPU, Links("a", {1: here})), Ranks(1, 2, CPU, Links("a", {0: there}))
    here.close()
    there.close()


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_alone_there_is_nothing_to_watch(ended):
    with Watch(Ranks(0, 1, CPU), 1.0):
        pass
    assert ended == []


def test_two_that_live_and_leave_in_order(pair, ended):
    with Watch(pair[0], 0.5) as zero:
        with Watch(pair[1], 0.5) as one:
            time.sleep(1.0)
        time.sleep(0.6)  # the other has said goodbye: its silence is none
        assert zero.verdict is None
        assert one.verdict is None
    assert ended == []


def test_one_that_died(pair, ended, capsys):
    with Watch(pair[0], 60.0) as zero:
        pair[1].links.by_rank[0].close()
        until(lambda: ended)
    assert zero.verdict == "rank 1 of 2 died"
    assert ended == [2]
    assert capsys.readouterr().err == (
        "myna train: rank 1 of 2 died; the last checkpoint is kept, and the same command goes on from there\n"
    )


def test_one_that_is_silent(pair, ended):
    with Watch(pair[0], 0.3) as zero:
        until(lambda: ended)
    assert zero.verdict == "rank 1 of 2 has not answered for 0.3 s: it hangs"


def test_a_checkpoint_in_flight_is_waited_for(pair, ended):
    waited = []
    with Watch(pair[0], 60.0) as zero:
        zero.finish_first(waited.append)
        pair[1].links.by_rank[0].close()
        until(lambda: ended)
    assert waited == [watching.LAST_WORK_S]


def test_after_its_end_it_holds_nothing_of_the_run(pair):
    """Its thread may live longer than the main one, and must not be the one that frees tensors."""

    class Run:
        def wait(self, seconds):
            """Nothing."""

    with Watch(pair[0], 60.0) as zero:
        run = Run()
        zero.finish_first(run.wait)
        held = weakref.ref(run)
        del run
        assert held() is not None
    assert held() is None


def test_one_that_ended_by_an_error_says_which(pair, ended):
    with Watch(pair[0], 60.0) as zero:
        with pytest.raises(DataError), Watch(pair[1], 60.0):
            raise DataError("a shard is damaged")
        until(lambda: ended)
    assert zero.verdict == "rank 1 of 2 ended: a shard is damaged"


def test_one_that_was_stopped_is_no_loss(pair, ended):
    with Watch(pair[0], 60.0) as zero:
        with pytest.raises(Stopped), Watch(pair[1], 60.0):
            raise Stopped("saved")
        time.sleep(0.3)
    assert zero.verdict is None
    assert ended == []


def test_a_signal_to_one_is_for_all(pair, ended, monkeypatch, capsys):
    """Outside of the loop's steps, where they would agree; and a rank that stays in a collective is ended."""
    monkeypatch.setattr(watching, "STOP_S", 0.05)
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        with Watch(pair[0], 60.0) as zero:
            with pytest.raises(Interrupted), Watch(pair[1], 60.0):
                raise Interrupted(signal.SIGTERM)
            until(lambda: ended)
        assert zero.signal == signal.SIGTERM
        assert ended == [75]
        assert capsys.readouterr().err.startswith("myna train: stopped by SIGTERM; the same command goes on")
        # torchrun signals the one that is still on its way out
        assert {signal.getsignal(number) for number in ENDING} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_failed_collective_becomes_the_name_of_the_rank(pair):
    def lose():
        pair[1].links.by_rank[0].close()
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    with (
        pytest.raises(RankError, match=r"^rank 1 of 2 died; the last checkpoint is kept"),
        Watch(pair[0], 60.0),
    ):
        lose()


def test_a_defect_stays_a_defect(pair):
    with pytest.raises(RuntimeError, match="shapes"), Watch(pair[0], 60.0), Watch(pair[1], 60.0):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_who_slept_itself_accuses_nobody(pair, ended, monkeypatch):
    """As after SIGSTOP and SIGCONT: the clock jumps, and the other's signs of life come a moment later."""
    clock, jump = time.monotonic, [0.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: clock() + jump[0])
    with Watch(pair[0], 5.0) as zero, Watch(pair[1], 5.0):
        time.sleep(0.2)
        jump[0] = 100.0
        time.sleep(1.5)
        assert zero.verdict is None
    assert ended == []


def test_ranks_meet_whatever_an_earlier_attempt_left(monkeypatch):
    """In the store lie a port where nobody listens, and then one where a stranger does."""
    monkeypatch.setattr(meeting, "REPLY_S", 0.2)
    store, found = HashStore(), {}
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            store.set(KEY, json.dumps([probe.getsockname()[1], "old"]))

        def join(rank):
            found[rank] = meet(store, rank=rank, world_size=3, host="127.0.0.1", timeout_s=20)

        threads = [threading.Thread(target=join, args=(rank,)) for rank in (1, 2, 0)]
        for thread in threads[:2]:
            thread.start()
        time.sleep(0.3)
        store.set(KEY, json.dumps([stranger.getsockname()[1], "old"]))
        time.sleep(0.5)
        threads[2].start()
        for thread in threads:
            thread.join(20)
    assert len({links.attempt for links in found.values()}) == 1
    assert sorted(found[0].by_rank) == [1, 2]
    for rank in (1, 2):  # each is connected with the right one
        found[rank].by_rank[0].sendall(bytes([rank]))
        assert found[0].by_rank[rank].recv(1) == bytes([rank])
    for links in found.values():
        for link in links.by_rank.values():
            link.close()


def test_a_stranger_who_knocks_is_sent_away():
    store, found = HashStore(), []
    thread = threading.Thread(
        target=lambda: found.append(meet(store, rank=0, world_size=2, host="127.0.0.1", timeout_s=20))
    )
    thread.start()
    port, secret = json.loads(store.get(KEY))
    with socket.create_connection(("127.0.0.1", port)) as knock:
        knock.sendall(b"GET / HTTP/1.1".ljust(HELLO_BYTES))
        assert knock.recv(1) == b""
    one = meet(store, rank=1, world_size=2, host="127.0.0.1", timeout_s=20)
    thread.join(20)
    assert one.attempt == secret
    for links in (one, *found):
        for link in links.by_rank.values():
            link.close()


@pytest.mark.parametrize("rank", [0, 1])
def test_who_does_not_come_is_named(rank):
    store = HashStore()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        store.set(KEY, json.dumps([probe.getsockname()[1], "old"]))
    says = (
        "rank 1, 2 of 3 did not join rank 0 within 0.3 s"
        if rank == 0
        else "rank 1 could not join rank 0 at 127"
    )
    with pytest.raises(DeviceError, match=says):
        meet(store, rank=rank, world_size=3, host="127.0.0.1", timeout_s=0.3)


def test_an_error_without_a_text_is_named_by_its_kind(pair):
    with Watch(pair[0], 60.0) as zero:
        with pytest.raises(KeyError), Watch(pair[1], 60.0):
            raise KeyError
        until(lambda: zero.verdict)
    assert zero.verdict == "rank 1 of 2 ended: KeyError"


def test_a_failed_collective_without_a_text_is_explained(pair, monkeypatch):
    monkeypatch.setattr(watching, "of_a_collective", lambda error: True)
    lost = Watch(pair[0], 0.5)._explained(RuntimeError())  # nobody has sent a sign of life
    assert str(lost).startswith("rank 1 of 2 has fallen silent; ")


@pytest.mark.parametrize(
    "error", [DataError("no text in a.jsonl"), PermissionError(13, "Permission denied", "a")]
)
def test_a_refusal_that_rank_0_meets_too_is_its_to_say(pair, error):
    met = threading.Barrier(2)
    errors = {}

    def refuse(ranks):
        own = type(error)(*error.args)
        try:
            with Watch(ranks, 10.0):
                met.wait()
                raise own
        except (DataError, OSError):
            errors[ranks.rank] = own

    threads = [threading.Thread(target=refuse, args=(ranks,)) for ranks in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not getattr(errors[0], "told", False)
    assert errors[1].told


def test_a_refusal_of_one_rank_alone_is_said_by_rank_0_which_hears_of_it(pair):
    refusal = DataError("no text in a.jsonl")

    def other_refuses():
        with pytest.raises(DataError), Watch(pair[1], 10.0):
            raise refusal
        raise RuntimeError("gloo: Connection closed by peer")

    with (
        pytest.raises(RankError, match=r"rank 1 of 2 ended: no text in a\.jsonl;") as lost,
        Watch(pair[0], 10.0),
    ):
        other_refuses()
    assert refusal.told
    assert not lost.value.told


def test_a_refusal_that_nobody_hears_is_said_by_its_rank(pair, monkeypatch):
    monkeypatch.setattr(watching, "ANSWER_S", 0.05)
    refusal = DataError("no text in a.jsonl")
    with pytest.raises(DataError), Watch(pair[1], 10.0):
        raise refusal
    assert not refusal.told
