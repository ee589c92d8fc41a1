"""A tokenizer's view of a text, without a server."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

pytest.importorskip("starlette")

from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.serve.answers import json_bytes
from myna.serve.errors import ApiError
from myna.serve.limits import Limits
from myna.serve.models import Models, serve_model
from myna.serve.tokens import MOST_WORDS_BYTES, merges, tokenize
from myna.text.tokenizer import Tokenizer

FEW = Limits(max_text_bytes=5000)


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=257)).eval()
    served = serve_model("gpt2", model, Tokenizer.bytes(), "fp32", 1, 0)
    yield Models([replace(served, tokenizer=Tokenizer.gpt2())])
    served.worker.close(5)


def test_merges_are_told_step_by_step(models):
    (word,) = merges({"text": "hello"}, models, FEW)["words"]
    assert word["word"] == "hello"
    assert word["steps"][0]["parts"] == ["h", "e", "l", "l", "o"]
    assert word["steps"][-1]["parts"] == ["hello"]
    assert all(len(step["ranks"]) == len(step["parts"]) - 1 for step in word["steps"])


def test_a_text_has_a_cap_in_bytes(models):
    for ask in (tokenize, merges):
        with pytest.raises(ApiError, match="5,004 bytes; this server shows the tokens of 5,000"):
            ask({"text": "🙂" * 1251}, models, FEW)
    assert tokenize({"text": "🙂" * 1250}, models, FEW)["count"] == 2500


def test_of_a_long_text_the_word_at_one_byte_is_told(models):
    """All steps of all words would be millions."""
    text = "word " * (MOST_WORDS_BYTES // 5)
    assert (
        len(merges({"text": text}, models, FEW)["words"]) == MOST_WORDS_BYTES // 5 + 1
    )  # and the last space
    with pytest.raises(ApiError, match="more than 4,000 bytes"):
        merges({"text": text + "x"}, models, FEW)
    (word,) = merges({"text": text + "x", "at": 7}, models, FEW)["words"]
    assert (word["word"], word["start"]) == (" word", 4)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": [], "b": [1, {"c": 2}], "d": [{"e": "\ud800🙂"}, 3, {}], "f": {"g": [{}]}, "\udcff": None},
        [{"a": 1}, {"b": "\n"}],
        "x",
    ],
)
def test_json_is_pythons_whatever_it_holds(value):
    assert json.loads(json_bytes(value)) == value


def test_json_holds_no_number_that_is_none():
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes({"a": [{"b": float("nan")}]})
