import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from myna.cli import main
from myna.data.shards import open_dataset
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.text.tokenizer import Tokenizer

TEXT = "Ein süßer Text, der nicht sehr lang ist.\n" * 3


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=32, vocab_size=257))
    network.save_pretrained(tmp_path / "model", Tokenizer.bytes())
    return tmp_path / "model"


def evaluate(*args: object) -> int:
    task = ("--task", "perplexity", "--device", "cpu", "--precision", "fp32")
    return main(["eval", *map(str, args), *task])


def scores(capsys, *args: object) -> dict:
    assert evaluate(*args, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_of_a_text_file(model, tmp_path, capsys):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    found = scores(capsys, model, "--data", tmp_path / "a.txt", "--stride", 5)
    n = len(TEXT.encode())
    assert (found["tokens"], found["text_bytes"], found["sequence_length"], found["stride"]) == (n, n, 32, 5)
    assert found["nats_per_token"] == pytest.approx(math.log(257), abs=0.1)
    assert found["perplexity"] == pytest.approx(math.exp(found["nats_per_token"]))
    assert found["bits_per_byte"] == pytest.approx(found["nats_per_token"] / math.log(2))
    whole = scores(capsys, model, "--data", tmp_path / "a.txt", "--sequence-length", 8)
    assert (whole["sequence_length"], whole["stride"]) == (8, 4)


def test_of_documents_each_after_an_end_of_text(model, tmp_path, capsys):
    (tmp_path / "texts").mkdir()
    with gzip.open(tmp_path / "texts" / "b.jsonl.gz", "wt") as file:
        file.write('{"text": "one"}\n{"text": "three"}\n')
    (tmp_path / "texts" / "c.txt").write_text("four")
    found = scores(capsys, model, "--data", tmp_path / "texts")
    assert (found["text_bytes"], found["tokens"]) == (
        12,
        14,
    )  # the ends between the three are targets, and no text
    network = GPT.from_pretrained(model)
    ids = [256, *b"one", 256, *b"three", 256, *b"four"]
    with torch.no_grad():
        log_p = network(torch.tensor([ids[:-1]]))[0].log_softmax(dim=1).double()
    nats = -log_p.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert found["nats_per_token"] == pytest.approx(float(nats.mean()), rel=1e-5)
    text = nats[torch.tensor(ids[1:]) < 256].sum()
    assert found["bits_per_byte"] == pytest.approx(float(text) / math.log(2) / 12, rel=1e-5)


def test_of_a_dataset(model, small_dataset, capsys):
    """With windows side by side, what `--task val` says."""
    found = scores(capsys, model, "--data", small_dataset, "--stride", 32)
    assert main(["eval", str(model), "--task", "val", "--data", str(small_dataset), "--json"]) == 0
    val = json.loads(capsys.readouterr().out)
    assert found["nats_per_token"] == pytest.approx(val["val_loss"], rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(val["val_bits_per_byte"], rel=1e-6)
    assert (found["tokens"], found["text_bytes"]) == (val["val_targets"], val["val_text_bytes"])


def test_of_another_projects_dataset(model, small_dataset, tmp_path, capsys):
    ids = open_dataset(small_dataset).val.read(0, 400)
    for split in ("train", "val"):
        np.save(tmp_path / f"x_{split}_000000.npy", ids.astype(np.uint16))
    (tmp_path / "model").rename(tmp_path.parent / f"{tmp_path.name}-model")
    found = scores(capsys, tmp_path.parent / f"{tmp_path.name}-model", "--data", tmp_path)
    assert found["tokens"] == 399


def test_what_weights_cost(model, tmp_path, capsys):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    call = [
        "eval",
        model,
        "--task",
        "perplexity",
        "--data",
        tmp_path / "a.txt",
        "--weights",
        "int8",
        "--json",
    ]
    assert main([*map(str, call), "--device", "cpu"]) == 0
    assert abs(json.loads(capsys.readouterr().out)["nats_per_token_cost"]) < 0.1


def test_bad_input_is_a_line(model, small_dataset, tmp_path, capsys):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes("süß".encode("latin-1") * 9)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "folder").mkdir()
    text = ("--data", tmp_path / "text.txt")
    cases = [
        ((), "--task perplexity needs --data"),
        (("--data", tmp_path / "absent.txt"), "absent.txt is not there"),
        (("--data", tmp_path / "empty.txt"), "empty.txt holds no text"),
        (("--data", tmp_path / "latin.txt"), "latin.txt is not UTF-8 at byte 1 (line 1)"),
        (("--data", tmp_path / "folder"), "folder holds no text"),
        (("--data", "/dev/null"), "/dev/null is a device or a pipe"),
        ((*text, "--stride", 0), "--stride is 0; give 1 to 32"),
        ((*text, "--stride", -1), "--stride is -1; give 1 to 32"),
        ((*text, "--stride", 33), "--stride is 33; give 1 to 32"),
        ((*text, "--sequence-length", 8, "--stride", 9), "--stride is 9; give 1 to 8"),
        ((*text, "--sequence-length", 33), "--sequence-length is 33; give 1 to 32"),
        ((*text, "--rendering", "lecture"), "--rendering is a flag of --task hellaswag"),
        (("--data", small_dataset, "--tokenizer", "gpt2"), "50257 ids and the model 257"),
    ]
    for flags, words in cases:
        assert evaluate(model, *flags) == 2, words
        out, err = capsys.readouterr()
        assert out == ""
        assert words in err, err
        assert err.count("\n") == 1, err
        assert "--skip-bad" not in err
