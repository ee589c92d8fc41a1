import os
import signal
import subprocess
import sys

import pytest

from myna import signals
from myna.errors import Stopped
from myna.signals import stop_on_signals


@pytest.fixture(autouse=True)
def restored():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_a_request(name):
    with stop_on_signals() as stop:
        assert not stop.asked()
        os.kill(os.getpid(), getattr(signal, name))
        assert stop.asked()
        assert stop.signal_name == name


def test_an_echo_of_ctrl_c_is_none_and_a_second_one_interrupts(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        now[0] += signals.SECOND_AFTER_S / 2
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked()
        now[0] += signals.SECOND_AFTER_S
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("one_of_many", "after"), [(True, signal.SIG_IGN), (False, "as before")])
def test_a_stopped_rank_is_not_to_be_killed_while_it_ends(one_of_many, after):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), stop_on_signals(one_of_many):
        raise Stopped("by a signal to another rank")
    assert signal.getsignal(signal.SIGTERM) == (before if after == "as before" else after)


def test_after_the_block_all_is_as_before():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals(one_of_many=True):
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_windows_is_refused_in_one_line():
    code = "import sys; sys.platform = 'win32'; import myna.cli"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("myna: Windows ")
    assert "WSL2" in ended.stderr
    assert ended.stderr.count("\n") == 1
