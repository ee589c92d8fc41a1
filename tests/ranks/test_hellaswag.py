"""HellaSwag during training: several ranks fetch the file once, share the items, and count each of them once."""

import hashlib
import json
from pathlib import Path

import pytest

PROGRAM = str(Path(__file__).parent / "with_hellaswag_from.py")
ITEMS = [
    {
        "ind": n,
        "ctx": f"{n} green bottles",
        "endings": ["hanging.", "on the wall.", "x", "fall: 3."],
        "label": n % 4,
    }
    for n in range(9)
]


@pytest.fixture
def official(serving, child_environment: dict[str, str]):
    """A server that has the file; what was asked for."""
    content = "".join(json.dumps(item) + "\n" for item in ITEMS).encode()
    with serving(content) as (address, asked):
        child_environment["OFFICIAL"] = f"{address} {hashlib.sha256(content).hexdigest()} {len(content)}"
        yield asked


@pytest.mark.slow
def test_two_ranks_fetch_it_once_and_score_as_one_does(launch, small_run, official, tmp_path):
    scores = {}
    for ranks in (1, 2):
        out = tmp_path / f"run{ranks}"
        flags = ["--steps", "4", "--hellaswag", "auto", "--hellaswag-every", "2"]
        run = launch([*small_run, *flags], out, ranks=ranks, program=PROGRAM)
        assert run.wait() == 0, run.said()
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        scores[ranks] = [
            {name: value for name, value in record.items() if name.startswith("hellaswag")}
            for record in records
            if "hellaswag_items" in record
        ]
    assert official == ["/hellaswag_val.jsonl"]
    assert [score["hellaswag_items"] for score in scores[2]] == [9, 9, 9]
    assert scores[1] == scores[2]
