"""Nothing in a file runs, whatever it names."""

import builtins
import contextlib
import importlib
import logging.config
import os
import pickle
import random
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch

from myna.errors import CheckpointError
from myna.model.exchange.torch_file import Fields, read_torch_file


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def marker(tmp_path):
    """A file that an exploit would make. Nothing has made it at the end."""
    path = tmp_path / "it-ran"
    yield path
    assert not path.exists()


def exploits(marker):
    touch = f"open({str(marker)!r}, 'w')"
    handler = {"class": "logging.FileHandler", "filename": str(marker)}
    return {
        "posix.system": Calls(os.system, f"touch {marker}"),
        "__builtin__.eval": Calls(eval, touch),
        "__builtin__.exec": Calls(exec, touch),
        "io.open": Calls(builtins.open, str(marker), "w"),
        "torch.serialization.load": Calls(torch.load, str(marker)),
        # The name ends as that of a config class does, and an empty class takes its place.
        "dictConfig": Calls(logging.config.dictConfig, {"version": 1, "handlers": {"h": handler}}),
    }


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("place", ["alone", "in config", "in weights"])
def test_an_exploit_is_refused_by_name_and_not_run(tmp_path, marker, how, place):
    for name, exploit in exploits(marker).items():
        weights = {"a": 1 if how == "pickle" else torch.zeros(2)}
        content = {
            "alone": exploit,
            "in config": {"model": weights, "config": exploit},
            "in weights": {"model": OrderedDict(weights, b=exploit)},
        }[place]
        path = tmp_path / "exploit.pt"
        if how == "pickle":
            path.write_bytes(pickle.dumps(content, protocol=2))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
        said = refusal(path)
        assert name in said or name == "dictConfig"
        assert not marker.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that they leave open
def test_the_exploits_would_run(tmp_path):
    """Else the test above could not fail."""
    for name, exploit in exploits(tmp_path / "it-ran").items():
        if name in ("posix.system", "__builtin__.eval", "__builtin__.exec", "io.open"):
            pickle.loads(pickle.dumps(exploit, protocol=2))
            (tmp_path / "it-ran").unlink()


EVIL = """
from pathlib import Path
Path({marker!r}).touch()

class GPTConfig:
    def __new__(cls, *args):
        Path({marker!r}).touch()
        return object.__new__(cls)

    def __setstate__(self, state):
        Path({marker!r}).touch()
"""


@pytest.mark.parametrize("legacy", [False, True])
def test_a_config_class_is_neither_imported_nor_called(tmp_path, marker, monkeypatch, legacy):
    (tmp_path / "evil.py").write_text(EVIL.format(marker=str(marker)))
    monkeypatch.syspath_prepend(tmp_path)
    evil = importlib.import_module("evil")
    config = evil.GPTConfig()
    vars(config).update(n_layer=2, __class__="x", __setstate__="y")
    path = tmp_path / "config.pt"
    torch.save({"config": config}, path, _use_new_zipfile_serialization=not legacy)
    del sys.modules["evil"]
    marker.unlink()
    safe = set(torch.serialization.get_safe_globals())
    read = read_torch_file(path)["config"]
    assert isinstance(read, Fields)
    assert vars(read) == {"n_layer": 2, "__class__": "x", "__setstate__": "y"}
    assert "evil" not in sys.modules
    assert set(torch.serialization.get_safe_globals()) == safe


def test_a_pickle_of_a_later_protocol_is_refused(tmp_path, marker):
    path = tmp_path / "later.pt"
    torch.save({"model": exploits(marker)["posix.system"]}, path, pickle_protocol=4)
    refusal(path)


def test_what_is_no_file_of_torch_is_named(tmp_path):
    path = tmp_path / "x.pt"
    path.write_text("just text")
    refusal(path)
    path.write_bytes(b"")
    refusal(path)
    path.write_bytes(pickle.dumps({"model": [1]}, protocol=2))
    refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    assert "is a zip archive, but not one of torch.save" in refusal(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}, protocol=2))
    assert "is a zip archive, but not one of torch.save" in refusal(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    refusal(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_cut_file_is_refused(tmp_path, legacy):
    path = tmp_path / "cut.pt"
    torch.save({"model": {"a": torch.arange(1000.0)}}, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    for size in range(1, len(whole), 131):
        path.write_bytes(whole[:size])
        refusal(path)


def test_a_flipped_bit_is_refused(tmp_path):
    path = tmp_path / "flipped.pt"
    torch.save({"model": {"a": torch.arange(1000.0)}}, path)
    whole = path.read_bytes()
    start = whole.index(torch.arange(1000.0).numpy().tobytes()[:64])
    for at in range(start, start + 4000, 500):
        flipped = bytearray(whole)
        flipped[at] ^= 1
        path.write_bytes(flipped)
        assert "cut off or damaged" in refusal(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_damage_anywhere_is_read_or_refused_in_a_line(tmp_path, marker, legacy):
    """The older format has no checksums, so that a changed weight is not seen; a traceback never is."""
    path = tmp_path / "damaged.pt"
    torch.save(
        {"model": {"a": torch.arange(9.0)}, "step": 3}, path, _use_new_zipfile_serialization=not legacy
    )
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 1, 3])):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            read_torch_file(path)
