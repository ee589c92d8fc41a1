"""What we save, Hugging Face's libraries read as the same tokenizer, pattern included."""

import random
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from myna import Tokenizer

FRAGMENTS = [
    *"abZ19 !?\n\r\t'", "  ", "\r\n", "é", "ſ", "'s", "'S", "'ll", "'LL", "\u00a0", "\u3000", "½", "—", "“", "😀",
    "👍🏽", "\u0301", "中文", "ह", "한국", "1234567", "1234567890123456789012345", "    return x", "\n\n  ",
]  # fmt: skip


def probes() -> list[str]:
    rng = random.Random(3)
    texts = ["".join(rng.choices(FRAGMENTS, k=rng.randint(1, 12))) for _ in range(3000)]
    texts += ["9" * n for n in range(1, 60)] + [
        "x" + "1234567890" * 500 + " y",
        "a \n \n  ",
        "  \n",
        " " * 300,
        topics["if"],
    ]
    return texts


TOKENIZERS = {
    "gpt2": Tokenizer.gpt2,
    "bytes": Tokenizer.bytes,
    "trained gpt2": lambda: Tokenizer.train([*topics.values(), *probes()], 1500, "gpt2"),
    "trained gpt4": lambda: Tokenizer.train([*topics.values(), *probes()], 1500, "gpt4"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers(name: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tok = TOKENIZERS[name]()
    theirs = tokenizers.Tokenizer.from_str(tok.to_json().decode())
    texts = probes()
    assert [row.ids for row in theirs.encode_batch(texts)] == tok.encode_batch(texts)
    for text in texts[::50]:
        assert theirs.decode(tok.encode(text), skip_special_tokens=False) == text
    assert theirs.get_vocab_size() == tok.n_vocab
    assert theirs.token_to_id("<|endoftext|>") == tok.eot


@pytest.mark.parametrize("name", ["gpt2", "trained gpt4"])
def test_auto_tokenizer(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tok = TOKENIZERS[name]()
    tok.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')  # as in a checkpoint
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.eos_token_id, theirs.bos_token_id, len(theirs)) == (tok.eot, tok.eot, tok.n_vocab)
    for text in probes()[::3]:
        ids = tok.encode(text)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    saved = tmp_path / "again"
    theirs.save_pretrained(saved)
    again = Tokenizer.load(saved)
    assert [again.encode(text) for text in probes()[::10]] == [tok.encode(text) for text in probes()[::10]]
