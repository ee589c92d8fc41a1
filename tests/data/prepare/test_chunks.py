"""Files to chunks: small ones together, large ones in parts, and from any position on the same as from the first."""

import dataclasses
import json
from pathlib import Path

import pytest

from myna.data.prepare.chunks import chunks_of, is_small
from myna.data.prepare.share import Part, Share, runs_of
from myna.data.sources import cut
from myna.data.sources.source import ReadOptions, Source


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """Two small files, a large one, a remote one, three small ones that fill more than a chunk."""
    monkeypatch.setattr(cut, "PART_BYTES", 1000)
    found = []
    for number, lines in enumerate((10, 10, 200, 5, 20, 20, 20)):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(lines)))
        place = "https://host/3.jsonl" if number == 3 else str(path)
        found.append(Source(path.name, place, "jsonl", n_bytes=path.stat().st_size))
    return found


def test_runs_are_small_files_or_one_large_or_remote_one(files: list[Source]) -> None:
    assert runs_of(files) == [range(2), range(2, 3), range(3, 4), range(4, 6), range(6, 7)]
    assert runs_of(files[2:3]) == [range(1)]
    assert runs_of([]) == []
    assert is_small(files[:2])
    assert not is_small(files[2:3])
    assert not is_small(files[3:4])


def test_chunks_from_a_position_are_the_rest_and_earlier_files_are_not_asked_for(
    files: list[Source], tmp_path: Path
) -> None:
    asked: list[int] = []

    def fetch(number: int) -> Source:
        asked.append(number)
        return files[number].fetched(tmp_path / f"{number}.jsonl") if number == 3 else files[number]

    share = Share(files, ReadOptions())
    chunks = list(chunks_of(share, fetch, ReadOptions(), (0, 0)))
    assert asked == list(range(7))
    assert len(chunks) > 5
    assert sum(chunk.input_bytes for chunk in chunks) == sum(file.n_bytes or 0 for file in files)
    assert len({chunk.name for chunk in chunks}) == len(chunks)
    for number, chunk in enumerate(chunks):
        asked.clear()
        assert list(chunks_of(share, fetch, ReadOptions(), (chunk.file, chunk.index))) == chunks[number:]
        assert min(asked) == chunk.file
        assert (
            list(chunks_of(share, fetch, ReadOptions(), (chunk.file, chunk.index + 1)))
            == chunks[number + 1 :]
        )


@pytest.mark.parametrize("of", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("sized", [True, False])
def test_the_shares_of_all_parts_are_the_corpus(
    files: list[Source], tmp_path: Path, of: int, sized: bool
) -> None:
    """Each chunk once and in order; without the size of a remote file, files are not divided."""
    if not sized:
        files[3] = dataclasses.replace(files[3], n_bytes=None)
    asked: set[int] = set()

    def fetch(number: int) -> Source:
        asked.add(number)
        return files[number].fetched(tmp_path / f"{number}.jsonl") if number == 3 else files[number]

    options = ReadOptions()
    whole = list(chunks_of(Share(files, options), fetch, options, (0, 0)))
    found, times_fetched = [], 0
    for number in range(1, of + 1):
        asked.clear()
        share = Share(files, options, Part(number, of))
        mine = list(chunks_of(share, fetch, options, (0, 0)))
        assert max(asked, default=-1) < len(share.files)
        if mine and sized:
            widest = max(chunk.input_bytes for chunk in mine)
            assert abs(sum(chunk.input_bytes for chunk in mine) - (share.n_bytes or 0)) <= 2 * widest
        found += mine
        times_fetched += 3 in asked
    assert found == whole
    assert times_fetched == 1


def test_what_is_no_file_counts_nothing_and_is_in_the_first_part(files: list[Source]) -> None:
    pydoc = Source("pydoc of Python", "pydoc", "pydoc")
    shares = [Share([pydoc, *files[2:3]], ReadOptions(), Part(number, 3)) for number in (1, 2, 3)]
    assert [len(share.runs) for share in shares] == [2, 1, 1]
    assert sum(share.n_bytes or 0 for share in shares) == files[2].n_bytes
