"""Parts that several machines make, joined: the bytes of one machine's dataset, or one line that says what is wrong."""

import contextlib
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from myna.cli import main
from myna.data.prepare import Part, dataset, join, prepare
from myna.data.prepare.parts import part_folder
from myna.data.prepare.work_folder import WorkFolder
from myna.data.sources import cut
from myna.data.split import Dataset
from myna.errors import DataError, OutputError, Stopped
from myna.text.chat import with_chat_tokens
from myna.text.tokenizer import Tokenizer


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks of a small corpus, worked on in this process, and each in the journal."""
    monkeypatch.setattr(cut, "PART_BYTES", 3000)
    monkeypatch.setattr(dataset, "is_small", lambda files: True)
    monkeypatch.setattr(dataset, "JOURNAL_EVERY_S", 0)
    monkeypatch.setattr(join, "JOURNAL_EVERY_S", 0)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Four files: small ones, a large one of each kind that is cut, and bad and empty documents."""
    folder = tmp_path / "in"
    folder.mkdir()
    texts = [f"{n} green bottles, {n * 7 % 13} of them broken.\n" * (n % 9 + 1) for n in range(250)]
    (folder / "a.txt").write_text(texts[1])
    rows = [json.dumps({"text": text, "n": n}) for n, text in enumerate(texts)]
    rows[20], rows[200] = json.dumps({"text": "", "n": 0}), "no JSON"
    (folder / "b.jsonl").write_text("\n".join(rows) + "\n")
    pq.write_table(pa.table({"text": texts[:90], "n": range(90)}), folder / "c.parquet", row_group_size=9)
    (folder / "d.txt").write_text("".join(texts[30:100]))
    return folder


def make(corpus: Path, out: Path, part: Part | None = None, **options: Any) -> Dataset:
    return prepare(
        [str(corpus)], out, Tokenizer.gpt2(), shard_tokens=1501, skip_bad=True, part=part, **options
    )


@pytest.mark.parametrize("of", [1, 2, 7])
def test_parts_in_any_order_give_the_bytes_of_one_machine(corpus: Path, tmp_path: Path, of: int) -> None:
    whole = make(corpus, tmp_path / "whole")
    assert len(whole.train.shards) > 3
    out = tmp_path / "data"
    numbers = list(range(1, of + 1))
    random.Random(of).shuffle(numbers)
    sizes = [make(corpus, out, Part(number, of)).train.n_tokens for number in numbers]
    assert of > 2 or min(sizes) > 0.8 * sum(sizes) / of
    assert not out.exists()
    join.join(out)
    assert digest(out) == digest(whole.path)
    (tmp_path / ".data.parts.removed").mkdir()  # as a join leaves it that is killed at its end
    join.join(out)
    make(corpus, out, Part(1, of))  # there is nothing left to do
    assert digest(out) == digest(whole.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "in", "whole"]


@contextlib.contextmanager
def stop_after(saves: int) -> Iterator[None]:
    """The n-th save of the journal is the last thing that happens."""
    save, left = WorkFolder.save, [saves]

    def save_and_stop(work: WorkFolder, state: dict[str, Any]) -> None:
        save(work, state)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkFolder, "save", save_and_stop)
        yield


@pytest.mark.parametrize("saves", [1, 2, 4])
def test_a_part_and_a_join_go_on_where_they_were_stopped(corpus: Path, tmp_path: Path, saves: int) -> None:
    whole, out = make(corpus, tmp_path / "whole"), tmp_path / "data"
    make(corpus, out, Part(2, 2))
    with stop_after(saves), pytest.raises(Stopped):
        make(corpus, out, Part(1, 2))
    with pytest.raises(DataError, match=r"data lacks part 1/2.*--part 1/2"):
        join.join(out)
    make(corpus, out, Part(1, 2))
    make(corpus, out, Part(1, 2))  # repeated
    with stop_after(saves), pytest.raises(Stopped):
        join.join(out)
    assert not out.exists()
    join.join(out)
    assert digest(out) == digest(whole.path)


@pytest.mark.parametrize("name", ["gpt2", "own"])
@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_a_corpus_of_one_document(tmp_path: Path, kind: str, name: str) -> None:
    """`own`: a tokenizer to which no cut is safe, so that the document is one chunk."""
    folder = tmp_path / "in"
    folder.mkdir()
    text = "".join(f"Line {n} of one long text.\n" for n in range(900))
    (folder / "0.txt").write_text("")
    (folder / f"1.{'txt' if kind == 'text' else kind}").write_text(
        text if kind == "text" else json.dumps({"text": text}) + "\n"
    )
    tokenizer = Tokenizer.gpt2() if name == "gpt2" else Tokenizer.train([text], 300, pattern=r"\S+\s*|\s+")
    whole = prepare([str(folder)], tmp_path / "whole", tokenizer, shard_tokens=1501)
    assert (whole.train.n_documents, whole.val.n_documents) == (1, 1)
    for number in (3, 1, 2):
        prepare([str(folder)], tmp_path / "data", tokenizer, shard_tokens=1501, part=Part(number, 3))
    join.join(tmp_path / "data")
    assert digest(tmp_path / "data") == digest(whole.path)


def test_parts_of_conversations_and_of_some_rows(corpus: Path, tmp_path: Path) -> None:
    tokenizer = with_chat_tokens(Tokenizer.bytes())
    turns = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Seven."}]
    rows = [{"messages": [*turns, turns[0]] if n % 5 else turns[:1]} for n in range(200)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    calls: list[tuple[list[str], dict[str, Any]]] = [
        ([str(tmp_path / "chat.jsonl")], {"conversations": True}),
        ([str(corpus / "b.jsonl"), str(corpus / "c.parquet")], {"where": "n < 60 ", "skip_bad": True}),
    ]
    for number, (specs, options) in enumerate(calls):
        whole, out = tmp_path / f"whole{number}", tmp_path / f"data{number}"
        prepare(specs, whole, tokenizer, shard_tokens=100_003, **options)
        for part in (Part(2, 3), Part(3, 3), Part(1, 3)):
            prepare(specs, out, tokenizer, shard_tokens=100_003, part=part, **options)
        join.join(out)
        assert digest(out) == digest(whole)


def test_parts_that_do_not_belong_together(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    with pytest.raises(DataError, match="data has no parts"):
        join.join(out)
    make(corpus, out, Part(1, 3))
    make(corpus, out, Part(3, 3))
    with pytest.raises(DataError, match=r"data lacks part 2/3; run the same .* with --part 2/3"):
        join.join(out)
    for options in ({"val_fraction": 0.2}, {"where": "n < 3"}):
        source = corpus / "b.jsonl" if "where" in options else corpus
        make(source, out, Part(2, 3), **options)
        with pytest.raises(
            DataError, match=rf"part 2/3 .* another call .*\(different: .*{next(iter(options))}"
        ):
            join.join(out)
        with pytest.raises(OutputError, match="another call"):  # a part is not replaced either
            make(corpus, out, Part(2, 3))
        shutil.rmtree(part_folder(out, Part(2, 3)))
    make(corpus, out, Part(1, 2))
    with pytest.raises(DataError, match="holds part 1/2 and parts of 3"):
        join.join(out)
    shutil.rmtree(part_folder(out, Part(1, 2)))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("data")] == ["data.parts"]
    make(corpus, out, Part(2, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "PART_BYTES", 4000)
        shutil.rmtree(part_folder(out, Part(3, 3)))
        make(corpus, out, Part(3, 3))
    with pytest.raises(DataError, match=r"part 3/3 .*\(different: part_bytes"):
        join.join(out)


@pytest.mark.parametrize("same_size", [True, False])
def test_parts_of_different_files(corpus: Path, tmp_path: Path, same_size: bool) -> None:
    """Two machines with another b.jsonl: its size tells, or its hash where both read a piece of it."""
    out = tmp_path / "data"
    make(corpus, out, Part(1, 3))
    make(corpus, out, Part(3, 3))
    text = (corpus / "b.jsonl").read_text()
    (corpus / "b.jsonl").write_text(text.replace("broken", "mended" if same_size else "lost"))
    make(corpus, out, Part(2, 3))
    with pytest.raises(DataError, match=r"part 2/3 .*\(different: files, such as .*b\.jsonl\)"):
        join.join(out)


def test_a_damaged_part_is_named_and_made_again(corpus: Path, tmp_path: Path) -> None:
    whole, out = make(corpus, tmp_path / "whole"), tmp_path / "data"
    for number in (1, 2):
        make(corpus, out, Part(number, 2))
    second = part_folder(out, Part(2, 2))
    for name, words in (("train_000001.npy", "was damaged after"), ("dataset.json", "was changed")):
        data = (second / name).read_bytes()
        last = bytes([data[-2] ^ 1]) + data[-1:]
        (second / name).write_bytes(data.replace(b"1501", b"1502") if "json" in name else data[:-2] + last)
        with pytest.raises(DataError, match=words):
            join.join(out)
        assert not out.exists()
        shutil.rmtree(second)
        make(corpus, out, Part(2, 2))
    join.join(out)
    assert digest(out) == digest(whole.path)


def test_nothing_to_train_on_is_found_at_the_join(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n' * 5)
    for number in (1, 2):
        prepare([str(tmp_path / "a.jsonl")], tmp_path / "data", Tokenizer.bytes(), part=Part(number, 2))
    with pytest.raises(DataError, match=r"no text in it \(5 empty documents\)"):
        join.join(tmp_path / "data")
    assert not (tmp_path / "data.partial").exists()


def test_the_commands(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data"
    call = [
        "prepare",
        str(corpus / "d.txt"),
        str(corpus / "a.txt"),
        "--tokenizer",
        "bytes",
        "--out",
        str(out),
    ]
    for wrong in ("3/2", "0/2", "x", "1/", "-1/2", "1/2/3", "٣/٣", "9999999/9999999"):
        assert main([*call, f"--part={wrong}"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert (
        main(
            ["prepare", str(corpus / "a.txt"), "--tokenizer", "train:300", "--out", str(out), "--part", "1/2"]
        )
        == 2
    )
    assert "myna tokenizer train" in capsys.readouterr().err
    assert main(["prepare", str(tmp_path / "absent"), "--out", str(out), "--part", "1/2"]) == 2
    assert main(["prepare", "--from-shards", str(out), "--out", str(out), "--part", "1/2"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert main([*call, "--part", "2/2"]) == 0
    assert f"When all 2 are done, run: myna data join {out}" in capsys.readouterr().out
    assert main(["data", "join", str(out)]) == 2
    assert "data lacks part 1/2" in capsys.readouterr().err
    assert main(["data", "show", str(out), "--tokenizer", "bytes"]) == 2
    assert "is still in parts" in capsys.readouterr().err
    assert main([*call, "--part", "1/2"]) == 0
    assert main(["data", "join", str(out), "--verify"]) == 2
    assert main(["data", "join", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    assert main([*call, "--part", "1/2"]) == 0
    assert "is done; when" not in capsys.readouterr().out
    assert main([*call, "--val-fraction", "0.3", "--part", "1/2"]) == 2
    assert main(["data", "show", str(out), "--verify"]) == 0
