"""Conversations from files to shards, and from shards to windows."""

import gzip
import json
import re

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from myna import Tokenizer
from myna.cli import main
from myna.data.conversations import conversation_text, messages_of
from myna.data.packing import IGNORE, Conversations, ConversationStream, find_conversations, pack
from myna.data.shards import open_dataset
from myna.data.sources.pydoc_chat import pydoc_conversations
from myna.data.split import Split
from myna.errors import DataError
from myna.model import loss
from myna.text.chat import encode_conversation, with_chat_tokens

BYTES = with_chat_tokens(Tokenizer.bytes())
EOT, START, END = 256, 257, 258


def messages(*contents):
    return [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def prepared(tmp_path, capsys, *more):
    """Calls `myna prepare --conversations` without validation; the dataset or the exit code, and what was said."""
    call = ["prepare", *more, "--conversations", "--tokenizer", "bytes", "--out", str(tmp_path / "out")]
    code = main([*call, "--val-fraction", "0"])
    said = capsys.readouterr()
    return (open_dataset(tmp_path / "out") if code == 0 else code), said.out + said.err


def stream(split):
    return split.read(0, split.n_tokens).tolist(), split.scored.read(0, split.n_tokens).tolist()


def test_shards_hold_the_ids_and_what_is_scored(tmp_path, capsys):
    rows = [messages("a", "b"), messages("c", "d", "e", "f"), messages("g", "hij")]
    data, _ = prepared(
        tmp_path,
        capsys,
        written(tmp_path / "x.jsonl", [{"messages": row} for row in rows]),
        "--shard-tokens",
        "50",
    )
    ids, scored = [], []
    for row in rows:
        of_ids, of_scored = encode_conversation(BYTES, messages_of(conversation_text(row)))
        ids += of_ids
        scored += of_scored
    assert stream(data.train) == (ids, [int(one) for one in scored])
    files = {path.name for path in data.path.iterdir()}
    assert {"train_000000.npy", "train_000000.scored.npy", "train_000001.scored.npy"} <= files
    mask = np.load(data.path / "train_000000.scored.npy")
    assert (mask.dtype, mask.tolist()) == (np.uint8, [int(one) for one in scored[:50]])
    assert data.info["train"]["bytes"] == 10
    assert Tokenizer.load(data.path) == BYTES
    assert main(["data", "show", str(data.path), "--windows", "0"]) == 0
    assert f"train: conversations, {sum(scored)} of whose tokens are scored" in capsys.readouterr().out


def test_every_layout_and_format_gives_the_same(tmp_path, capsys):
    rows = [messages("a", "b"), messages("c", "d", "e", "f")]
    theirs = [
        [
            {"from": {"user": "human", "assistant": "gpt"}[turn["role"]], "value": turn["content"]}
            for turn in row
        ]
        for row in rows
    ]
    written(tmp_path / "a.jsonl", [{"messages": row, "more": 1} for row in rows])
    written(tmp_path / "b.jsonl", [{"id": 1, "conversations": row} for row in theirs])
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    pyarrow.parquet.write_table(pyarrow.table({"messages": rows, "n": [1, 2]}), tmp_path / "d.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"other": theirs}), tmp_path / "e.parquet")
    found = []
    for name in ("a.jsonl", "b.jsonl", "c.jsonl.gz", "d.parquet", "e.parquet"):
        more = ["--column", "other"] if name == "e.parquet" else []
        data, said = prepared(tmp_path / name[0], capsys, str(tmp_path / name), *more)
        assert not isinstance(data, int), said
        found.append(stream(data.train))
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"messages": messages("a", "b")[::-1]}, "turn 1 is of the assistant"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role 'tool'"),
        ({"messages": messages("a")[:1] * 2}, "turn 2 is of the user"),
        ({"messages": messages("a", "")}, "turn 2 (assistant) is empty"),
        ({"messages": "Hi"}, "a list of turns"),
        ({"messages": None}, "no conversation in 'messages'"),
        ({"messages": messages("a", "\ud800")}, "surrogate"),
        ({"text": "a"}, "no conversation in 'messages'"),
    ],
)
def test_a_bad_one_is_named_and_can_be_left_out(tmp_path, capsys, row, what):
    file = written(tmp_path / "x.jsonl", [{"messages": messages("a", "b")}, row])
    code, said = prepared(tmp_path, capsys, file)
    assert (code, said.count("\n")) == (2, 1)
    assert what in said
    assert "line 2" in said
    assert not (tmp_path / "out").exists()
    data, said = prepared(tmp_path, capsys, file, "--skip-bad")
    assert data.train.n_documents == 1
    assert "skipped 1 bad document" in said


def test_one_without_an_answer_is_counted(tmp_path, capsys):
    file = written(tmp_path / "x.jsonl", [{"messages": messages("a", "b")}, {"messages": messages("a")}])
    data, said = prepared(tmp_path, capsys, file)
    assert data.train.n_documents == 1
    assert "skipped 1 conversation without an answer" in said
    code, said = prepared(
        tmp_path / "none", capsys, written(tmp_path / "y.jsonl", [{"messages": messages("a")}])
    )
    assert code == 2
    assert "no answer in it (0 empty documents, 1 without an answer" in said


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["pydoc"], "no corpus of conversations"),
        (["{}/a.txt"], "no corpus of conversations"),
        (["{}/b.jsonl"], "which column holds the conversations? It has text"),
        (["{}/b.jsonl", "--from-shards", "{}"], "name a corpus"),
    ],
)
def test_what_holds_no_conversations_is_refused(tmp_path, capsys, more, what):
    (tmp_path / "a.txt").write_text("text")
    written(tmp_path / "b.jsonl", [{"text": "a"}])
    code, said = prepared(tmp_path, capsys, *(one.format(tmp_path) for one in more))
    assert (code, what in said) == (2, True), said


def test_conversations_are_not_prepared_as_text(tmp_path, capsys):
    assert main(["prepare", "pydoc-chat", "--out", str(tmp_path / "out"), "--tokenizer", "bytes"]) == 2
    assert "prepare it with --conversations" in capsys.readouterr().err
    file = written(tmp_path / "x.jsonl", [{"id": 1, "messages": messages("a", "b")}])
    assert main(["prepare", file, "--out", str(tmp_path / "out"), "--tokenizer", "bytes"]) == 2
    assert (
        "x.jsonl holds conversations in 'messages'; prepare it with --conversations"
        in capsys.readouterr().err
    )


def test_the_share_of_one_conversation_is_of_what_is_said(tmp_path, capsys):
    """The JSON around short turns is longer than they are."""
    rows = [{"messages": messages(f"{n:02}", "b")} for n in range(60)]
    call = ["prepare", written(tmp_path / "x.jsonl", rows), "--conversations", "--tokenizer", "bytes"]
    assert main([*call, "--out", str(tmp_path / "out")]) == 0
    assert open_dataset(tmp_path / "out").val.n_documents > 2
    assert "of the validation split" not in "".join(capsys.readouterr())


def test_a_mask_that_was_changed_is_found(tmp_path, capsys):
    data, _ = prepared(tmp_path, capsys, written(tmp_path / "x.jsonl", [{"messages": messages("a", "b")}]))
    path = data.path / "train_000000.scored.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"scored\.npy is not the file that was prepared"):
        open_dataset(data.path)


def test_pydoc_chat_is_calls_and_docstrings():
    found = [messages_of(document) for document in pydoc_conversations()]
    assert len(found) > 2000
    shapes = [
        (question, answer)
        for (question, answer, *_) in found
        if re.match(r"shutil\.copy\b|.*\bshutil\.copy\b", question.content)
    ]
    assert len(shapes) == 1
    assert shapes[0][1].content.startswith(
        'copy(src, dst, *, follow_symlinks=True)\n\nCopy data and mode bits ("cp src dst").'
    )
    for question, answer, *_ in found:
        name = answer.content.partition("(")[0]
        assert re.search(rf"\b{name}\b", question.content)
        assert answer.content.startswith(f"{name}(")


# -- windows


def plain_find(ids, scored, T):
    """The same as `find_conversations`, one by one."""
    starts = [n for n, id in enumerate(ids) if id == EOT]
    kept, cut, left_out = [], 0, 0
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        answers = [n + 1 for n in range(start, end) if scored[n] and (n + 1 == len(ids) or not scored[n + 1])]
        fitting = [n for n in answers if n - start <= T + 1]
        if fitting:
            kept.append((start, fitting[-1] - start, sum(scored[start : fitting[-1]])))
            cut += fitting[-1] < answers[-1]
        else:
            left_out += 1
    return kept, cut, left_out


@pytest.mark.parametrize("T", [45, 60, 100, 500])
@pytest.mark.parametrize("scan", [7, 1 << 22])
def test_conversations_are_found_and_cut_at_a_turn(conversations, monkeypatch, T, scan):
    monkeypatch.setattr("myna.data.packing.SCAN_IDS", scan)
    split = open_dataset(conversations).val
    found = find_conversations(split, EOT, T)
    kept, cut, left_out = plain_find(*stream(split), T)
    assert list(zip(found.starts, found.lengths, found.scored, strict=True)) == kept
    assert {array.dtype for array in (found.starts, found.lengths, found.scored)} == {np.dtype(np.int64)}
    assert (found.n_cut, found.n_left_out) == (cut, left_out)
    assert (cut > 0, left_out > 0) == (T < 500, T < 50)


def test_packing_is_whole_dense_and_of_its_seed():
    lengths = np.random.default_rng(0).integers(1, 100, 5000)
    windows = pack(lengths, 128, seed=1)
    assert sorted(piece for window in windows for piece in window) == list(range(5000))
    filled = [int(lengths[window].sum()) for window in windows]
    assert max(filled) <= 128
    assert sum(filled) / (128 * len(windows)) > 0.98
    assert pack(lengths, 128, seed=1) == windows
    assert pack(lengths, 128, seed=2) != windows


def test_every_conversation_once_an_epoch(conversations):
    data = open_dataset(conversations)
    samples = ConversationStream(data.train, 160, seed=3, eot=EOT)
    n = samples.windows_per_epoch
    found: dict[tuple[int, ...], int] = {}
    for first in range(0, 2 * n, 5):  # batches that span the border of the epochs
        count = min(5, 2 * n - first)
        inputs, targets, positions = samples.batch(first, count)
        assert inputs.shape == targets.shape == positions.shape == (count, 160)
        assert samples.n_targets(first, count) == int((targets != IGNORE).sum())
        for row, wanted, places in zip(inputs, targets, positions, strict=True):
            begins = np.flatnonzero(places == 0).tolist()
            for start, end in zip(begins, [*begins[1:], 160], strict=True):
                assert places[start:end].tolist() == list(range(end - start))
                if (wanted[start:end] != IGNORE).any():
                    text = (*row[start:end].tolist(), int(wanted[end - 1]))
                    found[text] = found.get(text, 0) + 1
                else:
                    assert set(row[start:end]) == {EOT}
    starts, lengths = samples.conversations.starts, samples.conversations.lengths
    pieces = [tuple(data.train.read(int(s), int(n)).tolist()) for s, n in zip(starts, lengths, strict=True)]
    assert len(pieces) == data.train.n_documents
    assert found == {piece: 2 * pieces.count(piece) for piece in pieces}
    assert samples.windows(0, n).tolist() != samples.windows(n, n).tolist()
    as_packed = ConversationStream(data.train, 160, 3, EOT, order="sequential")
    assert as_packed.windows(n - 2, 4).tolist() == [n - 2, n - 1, 0, 1]


def test_targets_are_the_scored_ids(tmp_path, capsys):
    data, _ = prepared(tmp_path, capsys, written(tmp_path / "x.jsonl", [{"messages": messages("a", "bc")}]))
    inputs, targets, positions = ConversationStream(data.train, 36, seed=0, eot=EOT).batch(0, 1)
    ids = [EOT, START, *b"user\na", END, 10, START, *b"assistant\nbc", END]
    assert inputs[0].tolist() == [*ids[:-1], *[EOT] * (36 - len(ids) + 1)]
    head = len(ids) - 4
    assert targets[0].tolist() == [IGNORE] * head + [*b"bc", END] + [IGNORE] * (36 - head - 3)
    assert positions[0].tolist() == [*range(len(ids) - 1), *range(36 - len(ids) + 1)]
    with pytest.raises(DataError, match="no conversation whose first answer ends within 20 tokens"):
        ConversationStream(data.train, 20, seed=0, eot=EOT)


def test_a_split_without_a_scored_id_or_without_an_id(tmp_path, capsys):
    data, _ = prepared(tmp_path, capsys, written(tmp_path / "x.jsonl", [{"messages": messages("a", "b")}]))
    mask = data.path / "train_000000.scored.npy"
    np.save(mask, np.zeros_like(np.load(mask)))
    unscored = open_dataset(data.path, verify=False).train
    empty = Split("empty", [], data.vocab_size, scored=Split("its mask", [], 2))
    for split, left_out in ((unscored, 1), (empty, 0)):
        found = find_conversations(split, EOT, 100)
        assert (len(found.starts), found.n_cut, found.n_left_out) == (0, 0, left_out)
        with pytest.raises(DataError, match="no conversation whose first answer ends"):
            ConversationStream(split, 100, seed=0, eot=EOT, limit=5)


def test_the_first_conversations_up_to_a_limit():
    some = Conversations(*(np.array([5, 6, 7]) for _ in range(2)), np.array([3, 4, 5]), 0, 0)
    assert [len(some.first(limit).starts) for limit in (1, 3, 6, 7, 12, 99)] == [1, 1, 1, 2, 3, 3]


def test_the_ignored_target_is_the_one_of_the_loss():
    assert IGNORE == loss.IGNORE
