"""HellaSwag during training: several ranks fetch the file once, share the items, and count each of them once."""

import hashlib
import http.server
import json
import threading
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
def official(child_environment: dict[str, str]):
    """A server on loopback that has the file; what was asked for."""
    content, asked = "".join(json.dumps(item) + "\n" for item in ITEMS).encode(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}/hellaswag_val.jsonl"
        child_environment["OFFICIAL"] = f"{address} {hashlib.sha256(content).hexdigest()} {len(content)}"
        yield asked
        server.shutdown()
        thread.join()


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
