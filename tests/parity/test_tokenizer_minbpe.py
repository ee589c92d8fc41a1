"""What minbpe's suite asks of its tokenizers, in our words: the worked example, round trips, special tokens, files."""

from pathlib import Path
from pydoc_data.topics import topics

import pytest
import tiktoken
import tiktoken_ext.openai_public as public

from myna import Tokenizer

SPECIALS = {"<|endoftext|>": 0, "<|fim_prefix|>": 1, "<|endofprompt|>": 2}
TEXTS = ["", "?", "hello 세계!!!? (안녕하세요!) lol123 😉", topics["with"]]
LLAMA = "<|endoftext|>The llama<|fim_prefix|> is a <|endofprompt|>camelid.<|endoftext|>"


@pytest.mark.parametrize("pattern", ["none", "gpt2", "gpt4"])
@pytest.mark.parametrize("text", TEXTS, ids=["empty", "one", "scripts", "page"])
def test_identity(pattern: str, text: str) -> None:
    tok = Tokenizer.train([topics["with"]], 300, pattern)
    assert tok.decode(tok.encode(text)) == text


def test_the_example_of_wikipedia() -> None:
    # aa, then a pair that occurs twice, then the two joined: 256, 257 and 258 as in minbpe's test.
    tok = Tokenizer.train(["aaabdaaabac"], 256 + 3 + 1, "none")
    assert tok.encode("aaabdaaabac") == [258, 100, 258, 97, 99]
    assert tok.decode([258, 100, 258, 97, 99]) == "aaabdaaabac"
    assert (tok.n_vocab, tok.eot) == (260, 259)


@pytest.mark.parametrize("text", TEXTS, ids=["empty", "one", "scripts", "page"])
def test_gpt2_is_tiktokens(text: str) -> None:
    ranks = Tokenizer.gpt2().vocabulary.ranks
    oracle = tiktoken.Encoding(
        "oracle", pat_str=public.r50k_pat_str, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )
    assert Tokenizer.gpt2().encode(text) == oracle.encode(text)
    with_special = text + "<|endoftext|>"
    assert Tokenizer.gpt2().encode(with_special, "all") == oracle.encode(with_special, allowed_special="all")


@pytest.mark.parametrize("specials", [[], list(SPECIALS)[1:]])
def test_special_tokens_survive_saving(specials: list[str], tmp_path: Path) -> None:
    tok = Tokenizer.train([LLAMA * 3, topics["with"]], 320, "gpt4", special_tokens=specials)
    ids = tok.encode(LLAMA, allowed_special="all")
    assert tok.decode(ids) == LLAMA
    assert ids.count(tok.eot) == 2
    assert [tok.special_tokens[name] for name in specials] == list(range(320 - len(specials), 320))
    for place in ("folder", "ranks.tiktoken"):
        tok.save(tmp_path / place)
        again = Tokenizer.load(tmp_path / place)
        assert again == tok
        assert again.encode(LLAMA, allowed_special="all") == ids
        assert again.decode(ids) == LLAMA
