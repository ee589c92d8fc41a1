"""Items that the training text holds are found wherever they stand; others are not."""

import json
import random
import resource
from pathlib import Path

import pytest

from myna import Tokenizer
from myna.cli import main
from myna.data.prepare import prepare
from myna.data.shards import open_dataset
from myna.errors import DataError
from myna.evaluate import overlap
from myna.evaluate.overlap import read_touched, touched_items, words_of

N = 13
WORDS = "ant bee cat dog elk fox gnu hen ibex jay kite lion mole newt owl pig quail rat seal toad".split()  # noqa: SIM905
FILLER = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "the",
    "of",
    "and",
    "a",
    "to",
    "in",
    "is",
    "it",
    "on",
    "for",
    "was",
]


def item(number: int, words: int = 30) -> str:
    """The text of an item: its words are its own, in an order that no other item has."""
    chance = random.Random(number)
    return " ".join(f"{chance.choice(WORDS)}{chance.randrange(50)}" for _ in range(words))


def filler(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(FILLER, k=words))


def dressed(text: str, chance: random.Random) -> str:
    """The same words with capitals and punctuation."""
    return " ".join(
        chance.choice([word, word.upper(), word + ",", f'"{word}"', word + "."]) for word in text.split()
    )


def dataset(folder: Path, documents: list[str]):
    folder.mkdir()
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    prepare([str(folder / "text.jsonl")], folder / "data", Tokenizer.bytes(), workers=1, val_fraction=0.0)
    return open_dataset(folder / "data", verify=False)


def planted(chance: random.Random, pieces: list[str], words: int) -> list[str]:
    """Documents of filler with each piece somewhere in them."""
    documents = []
    for piece in pieces:
        before, after = chance.randrange(words), chance.randrange(words)
        documents.append(f"{filler(chance, before)} {dressed(piece, chance)} {filler(chance, after)}.")
        documents.append(filler(chance, words))
    return documents


@pytest.mark.parametrize("piece_ids", [1 << 20, 700])
def test_whole_items_and_pieces_of_n_words_are_found_and_shorter_ones_are_not(
    tmp_path, monkeypatch, piece_ids
):
    monkeypatch.setattr(overlap, "PIECE_IDS", piece_ids)
    monkeypatch.setattr(overlap, "BEYOND_IDS", 16)
    chance = random.Random(1)
    items = [item(number) for number in range(40)]
    cut = [text.split() for text in items]
    pieces = [
        *items[:10],
        *(" ".join(words[5 : 5 + N]) for words in cut[10:20]),
        *(" ".join(words[5 : 5 + N - 1]) for words in cut[20:30]),
    ]
    data = dataset(tmp_path / "d", planted(chance, pieces, 60))
    assert touched_items(data.train, Tokenizer.bytes(), items, n=N, workers=1) == list(range(20))
    assert touched_items(data.train, Tokenizer.bytes(), items, n=N - 1, workers=1) == list(range(30))
    assert touched_items(data.train, Tokenizer.bytes(), items[30:], n=N, workers=1) == []


def test_a_row_of_words_does_not_go_from_one_document_into_the_next(tmp_path):
    words = item(0, N).split()
    data = dataset(tmp_path / "d", [" ".join(words[:7]), " ".join(words[7:]), filler(random.Random(0), 20)])
    assert touched_items(data.train, Tokenizer.bytes(), [" ".join(words)], workers=1) == []


def test_an_item_of_few_words_counts_where_all_of_it_stands(tmp_path):
    data = dataset(tmp_path / "d", [f"the {item(1, 5)} of", f"the {' '.join(item(2, 5).split()[:4])} of"])
    assert touched_items(data.train, Tokenizer.bytes(), [item(1, 5), item(2, 5)], workers=1) == [0]


def test_words_cut_by_a_border_are_no_words(tmp_path, monkeypatch):
    # The text has walking where the item has walk, and pieces end inside of it.
    row = ["run", "jump", "walk"]
    data = dataset(tmp_path / "d", ["run jump walking on " + "x" * 50])
    for piece_ids in range(5, 30):
        monkeypatch.setattr(overlap, "PIECE_IDS", piece_ids)
        monkeypatch.setattr(overlap, "BEYOND_IDS", 8)
        assert touched_items(data.train, Tokenizer.bytes(), [" ".join(row)], n=3, workers=1) == []
        assert touched_items(data.train, Tokenizer.bytes(), ["run jump walking"], n=3, workers=1) == [0]


def test_processes_find_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(overlap, "PIECE_IDS", 3000)
    items = [item(number) for number in range(6)]
    data = dataset(tmp_path / "d", planted(random.Random(2), items[::2], 400))
    assert data.train.n_tokens > 2 * overlap.PIECE_IDS  # else one process does it all
    data.train.read(0, 10)  # with a shard open
    seen: list[int] = []
    found = touched_items(data.train, Tokenizer.bytes(), items, workers=2, on_ids=seen.append)
    assert found == [0, 2, 4]
    assert sum(seen) == data.train.n_tokens


def test_words_are_lower_case_without_punctuation():
    assert words_of("Don't — _stop_,\n ÉCOLE 3.5") == ["dont", "stop", "école", "35"]


def items_file(path: Path, texts: list[str]) -> Path:
    rows = [
        {"ctx": text.rpartition(" ")[0], "endings": [text.rpartition(" ")[2], "x", "y", "z"], "label": 0}
        for text in texts
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_writes_what_eval_reads(tmp_path, capsys, save_tiny):
    texts = [item(number, 14) for number in range(4)]
    dataset(tmp_path / "d", planted(random.Random(3), texts[:2], 40))
    file = items_file(tmp_path / "items.jsonl", texts)
    out = tmp_path / "overlap.json"
    call = ["data", "overlap", str(tmp_path / "d" / "data"), "--with", str(file)]
    assert main([*call, "--out", str(out)]) == 0
    assert "2 of 4 items share 13 words in a row" in capsys.readouterr().out
    assert main(call) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    assert json.loads(out.read_text())["touched"] == read_touched(out, file, 4) == [0, 1]

    save_tiny(tmp_path / "model")
    score = ["eval", str(tmp_path / "model"), "--task", "hellaswag", "--data", str(file), "--json"]
    assert main(score) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main([*score, "--overlap", str(out)]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert {key: scores[key] for key in alone} == alone
    for key in ("hellaswag_acc", "hellaswag_acc_token", "hellaswag_acc_char"):
        assert (scores[f"{key}/clean"] + scores[f"{key}/touched"]) / 2 == pytest.approx(scores[key])
    assert (scores["hellaswag_items/clean"], scores["hellaswag_items/touched"]) == (2, 2)


def test_a_file_about_other_items_is_refused(tmp_path):
    file, other = (items_file(tmp_path / f"{n}.jsonl", [item(n)]) for n in (1, 2))
    good = {
        "format": overlap.FORMAT,
        "items": {"file": "1.jsonl", "sha256": overlap.sha256_file(file), "count": 1},
        "touched": [0],
    }
    path = tmp_path / "overlap.json"
    for wrong, where, says in (
        (good, other, "is about 1.jsonl, another file"),
        (good | {"touched": [1]}, file, "names items"),
        (good | {"touched": ["0"]}, file, "names items"),
        (good | {"format": "x"}, file, "does not say which items"),
        ({}, file, "does not say which items"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=says):
            read_touched(path, where, 1)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["overlap", "{data}"], "no items; name them with --with"),
        (["overlap", "{data}", "--with", "{items}", "--words", "0"], "--words is 0; give 1 or more"),
        (
            ["overlap", "{data}", "--with", "{items}", "--workers=-2"],
            "--workers is -2; give 1 or more",
        ),
        (["overlap", "{data}", "--with", "{data}/dataset.json"], "line 1"),
        (["show", "{data}", "--with", "{items}"], "--with belongs to `myna data overlap`"),
    ],
)
def test_what_cannot_be_is_a_line(small_dataset, tmp_path, capsys, args, says):
    file = items_file(tmp_path / "items.jsonl", [item(1)])
    out = tmp_path / "out.json"
    filled = [arg.format(data=small_dataset, items=file) for arg in args]
    assert main(["data", *filled, *(["--out", str(out)] if args[0] == "overlap" else [])]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not out.exists()


@pytest.mark.slow
def test_fifty_items_in_a_hundred_megabytes(tmp_path):
    chance = random.Random(4)
    items = [item(number) for number in range(100)]
    pieces = [
        *items[:25],
        *(" ".join(text.split()[n % 17 : n % 17 + N]) for n, text in enumerate(items[25:50])),
    ]
    words = 100_000_000 * 4 // 15 // (2 * len(pieces))  # a word and its space are some 3.8 bytes
    data = dataset(tmp_path / "d", planted(chance, pieces, words))
    assert data.train.n_tokens > 95_000_000
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert touched_items(data.train, Tokenizer.bytes(), items, workers=2) == list(range(50))
    assert touched_items(data.train, Tokenizer.bytes(), items[50:], workers=2) == []
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"peak of a process: {peak / 1024:.0f} MiB (before {before / 1024:.0f})")
    assert peak <= max(before, 1 << 20)  # 1 GiB, for any text; earlier tests may have had larger processes
