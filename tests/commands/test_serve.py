"""`myna serve`: what it refuses before it listens, and its life as a process."""

import importlib.util
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import torch

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from myna.cli import main
from myna.commands.serve import API_KEY_VARIABLE
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.text.tokenizer import Tokenizer


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=32, vocab_size=257))
    model.save_pretrained(tmp_path / "model", Tokenizer.bytes())
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no MODEL"),
        (["m"], "there is no folder m"),
        (["m", "--port", "70000"], "--port is 70000; give 0 to 65535"),  # the system would have taken 4464
        (["m", "--port", "-1"], "--port is -1"),
        (["m", "--host", "0.0.0.0"], "give a key with --api-key-file FILE or MYNA_API_KEY"),
        (["m", "--host", "no such name", "--api-key-file", "key"], "is no address"),
        (["m", "--host", "192.0.2.1", "--api-key-file", "key"], "cannot listen on 192.0.2.1"),
        (["m", "--api-key-file", "nowhere"], "cannot use nowhere: No such file"),
        (["m", "--api-key-file", "."], "cannot use .: Is a directory"),
        (["m", "--api-key-file", "latin"], "latin is no text in UTF-8"),
        (["m", "--api-key-file", "empty"], "holds no key; write one"),
        (["m", "--api-key-file", "two"], "two holds more than a key"),
        (["m", "--runs", "nowhere"], "nowhere is no folder"),
        (["m", "--allow-host", "http://gpu.example.org"], "give a name alone"),
        (["m", "--max-texts", "0"], "--max-texts is 0; give 1 or more"),
        (["m", "--max-seconds", "nan"], "--max-seconds is nan; give 1 or more"),
        (["m", "--weights", "int8", "--precision", "fp32"], "give one of the two"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, content in (("key", b"k"), ("latin", b"\xff"), ("empty", b" \n"), ("two", b"one\ntwo\n")):
        Path(name).write_bytes(content)
    assert main(["serve", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_port_in_use_and_an_empty_key_of_the_environment(monkeypatch, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["serve", "m", "--port", str(port)]) == 2
    assert f"port {port}: Address already in use; give another --port" in capsys.readouterr().err
    monkeypatch.setenv(API_KEY_VARIABLE, "")
    assert main(["serve", "m"]) == 2
    assert f"{API_KEY_VARIABLE} holds no key" in capsys.readouterr().err


def test_without_its_packages_it_says_how_to_get_them(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    assert main(["serve", "m"]) == 2
    assert "needs uvicorn; install it: pip install 'myna[serve]'" in capsys.readouterr().err


def test_it_serves_until_it_is_told_to_end(model_folder, child_environment):
    """SIGTERM in the middle of a stream: what was begun is told to its end, and the exit code is 0."""
    key = model_folder.with_name("key")
    key.write_text("secret\n")
    command = [
        sys.executable,
        "-m",
        "myna",
        "serve",
        str(model_folder),
        "--port",
        "0",
        "--drain-seconds",
        "0",
    ]
    process = subprocess.Popen(
        [*command, "--api-key-file", str(key)],
        env=child_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        said = [process.stdout.readline().decode(), process.stdout.readline().decode()]
        found = re.search(r"serving at (http://127.0.0.1:\d+)", said[1])
        assert found, said
        body = json.dumps({"prompt": "a", "max_tokens": 4000, "slide": True, "stream": True, "seed": 1})
        request = urllib.request.Request(
            f"{found[1]}/v1/completions", body.encode(), {"Authorization": "Bearer secret"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.readline().startswith(b"data: ")
            process.send_signal(signal.SIGTERM)
            rest = answer.read().decode()
        assert rest.endswith("data: [DONE]\n\n")
        assert '"finish_reason":"length"' in rest or '"finish_reason":"stop"' in rest
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.communicate()
