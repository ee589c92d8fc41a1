import sys

import pytest

from myna.errors import DeviceError, UsageError
from myna.train.machines.ranks import start_ranks
from myna.train.machines.torchrun import Place, once_a_machine, read_place

TWO = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_the_place_is_read():
    assert read_place({}) == Place(0, 1, 0, "")
    assert read_place(TWO) == Place(1, 2, 1, "127.0.0.1")
    assert read_place(TWO | {"LOCAL_RANK": "0"}).local_rank == 0  # the second machine's first


@pytest.mark.parametrize("missing", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_missing_variable_is_named_at_once(missing):
    without = {name: value for name, value in TWO.items() if name != missing}
    with pytest.raises(UsageError, match=f"WORLD_SIZE is 2 without {missing}; start it with torchrun"):
        read_place(without)
    with pytest.raises(UsageError, match="without RANK, MASTER_ADDR, MASTER_PORT"):
        read_place({"WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("WORLD_SIZE", ["0", "-1", "abc", "", "1.5", "9" * 5000, "٣"]),
        ("RANK", ["a", "2", "-1", "1e0", " 1"]),
        ("LOCAL_RANK", ["x", "2"]),
        ("MASTER_PORT", ["abc", "0", "65536", "80/x"]),
    ],
)
def test_a_variable_that_is_no_such_number_is_named(name, values):
    for value in values:
        with pytest.raises(UsageError, match=f"the variable {name} is .*must be a number from .*; start it"):
            read_place(TWO | {name: value})


def refuse():
    print("a panel", file=sys.stderr)
    raise UsageError("no such flag")


def test_what_all_ranks_of_a_machine_find_is_said_by_the_first(capsys):
    told = {}
    for environ in ({}, {"RANK": "1"}, *({"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": rank} for rank in "01")):
        with pytest.raises(UsageError) as refused, once_a_machine(environ):
            refuse()
        told[tuple(environ)[:1], environ.get("LOCAL_RANK")] = (refused.value.told, capsys.readouterr().err)
    silent = told.pop((("TORCHELASTIC_RUN_ID",), "1"))
    assert silent == (True, "")
    assert set(told.values()) == {(False, "a panel\n")}


@pytest.mark.parametrize("port", ["1", "taken"])
def test_the_library_does_not_print_its_stack_above_our_line(port, capfd, monkeypatch):
    import socket

    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        rank = "1" if port == "1" else "0"
        number = port if port == "1" else str(server.getsockname()[1])
        environ = TWO | {"RANK": rank, "MASTER_PORT": number, "LOCAL_RANK": rank}
        for key, value in environ.items():
            monkeypatch.setenv(key, value)
        with (
            pytest.raises(DeviceError, match=f"rank {rank} of 2 could not join"),
            start_ranks(environ, "cpu", 1.0),
        ):
            pass
    assert capfd.readouterr() == ("", "")
