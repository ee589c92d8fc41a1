"""Training from texts: sizes, errors, and the same merges however the work is shared."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from myna import Tokenizer
from myna.errors import TextError, TokenizerError
from myna.text import bpe, counting, patterns
from myna.text.counting import count_pretokens
from myna.text.training import learn

TEXTS = [*list(topics.values())[:20], "naïve café 中文字 😀😀 привет мир " * 50, "", "x" * 5000]


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "o200k", r"\w+|\s+|[^\w\s]"])
def test_the_same_for_one_and_two_workers(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "BATCH_CHARACTERS", 10_000)
    one, two = (Tokenizer.train(TEXTS, 700, pattern, workers=n) for n in (1, 2))
    assert one.to_json() == two.to_json()


@pytest.mark.parametrize("pattern", [*patterns.BY_NAME, r"[a-z]+"])
def test_counts_are_those_of_the_plain_split(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "BATCH_CHARACTERS", 5_000)
    monkeypatch.setattr(counting, "MOST_SEGMENTS", 1_000)
    split = patterns.named(pattern)
    plain = Counter(piece.encode() for text in TEXTS for piece in split.split(text))
    sizes: list[int] = []
    assert count_pretokens(iter(TEXTS), split, on_bytes=sizes.append) == plain
    assert sum(sizes) == sum(len(text.encode()) for text in TEXTS)
    assert not split.cuts or len(counting.known_segments(split)) < 3_000


def test_ids_are_bytes_then_merges_then_end_of_text() -> None:
    tok = Tokenizer.train(TEXTS, 400)
    assert tok.n_vocab == 400
    assert tok.eot == 399
    assert tok.special_tokens == {"<|endoftext|>": 399}
    counts = count_pretokens(TEXTS, patterns.GPT2)
    assert list(tok.vocabulary.tokens) == bpe.token_bytes(bpe.train(counts, 400 - 257))
    text = TEXTS[0][:2000]
    merges = bpe.train(counts, 400 - 257)
    assert tok.encode(text) == [i for p in patterns.GPT2.split(text) for i in bpe.encode(p.encode(), merges)]


def test_a_vocabulary_that_is_too_small() -> None:
    with pytest.raises(TokenizerError, match="256 is too small"):
        Tokenizer.train(TEXTS, 256)
    assert Tokenizer.train(TEXTS, 257).encode("hi") == [104, 105]


def test_a_corpus_with_fewer_merges_than_asked_says_how_many() -> None:
    with pytest.raises(TokenizerError, match=r"holds only 3 merges and 743 were asked .* at most 260"):
        Tokenizer.train(["abc abc"], 1000)


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(TextError, match="lone surrogate"):
        Tokenizer.train(["fine", "not \udc80"], 300)


def test_an_error_in_a_worker_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "BATCH_CHARACTERS", 1)

    def texts() -> object:
        yield "a"
        raise TextError("the reader failed")

    with pytest.raises(TextError, match="the reader failed"):
        count_pretokens(texts(), patterns.GPT2, workers=2)  # type: ignore[arg-type]


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from myna.text import patterns\n"
        "from myna.text.counting import count_pretokens\n"
        "def texts():\n"
        "    yield from ['word ' * 10_000_000] * 2\n"
        "    time.sleep(0.5)\n"
        "    print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "    time.sleep(600)\n"
        "    yield ''\n"
        "if __name__ == '__main__':\n"
        "    count_pretokens(texts(), patterns.GPT2, workers=2)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert pids
    deadline = time.monotonic() + 30
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_progress_is_told_in_bytes_and_merges() -> None:
    bytes_seen: list[int] = []
    merges_seen: list[int] = []
    learned = learn(
        ["ab ab é"] * 3, 258, patterns.GPT2, on_bytes=bytes_seen.append, on_merge=merges_seen.append
    )
    assert sum(bytes_seen) == learned.n_bytes == 3 * len("ab ab é".encode())
    assert merges_seen == [1]
    assert learned.unique_pretokens == 3
