import io
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from myna.bench.picture import picture
from myna.bench.table import footnotes, headlines, print_table

MEASURED = {
    "ms_per_step": 5000.04,
    "tokens_per_second": 409.6,
    "share_of_limit": 0.333,
    "ratio": 1.0,
    "peak_memory_bytes": 4_340_000_000,
    "first_step_seconds": 7.25,
    "first_loss": 10.9,
    "last_loss": 9.5,
    "compiler_failure": "",
    "skipped_updates": 0,
}
OURS = MEASURED | {"ratio": 2.5, "first_loss": 10.901, "compiler_failure": "no g++"}
LADDER = {
    "machine": {
        "device": "cpu",
        "name": "a $1 chip",
        "threads": 2,
        "torch": "2.13.0",
        "matrix_flops": 1e12,
        "matrix_about": "measured",
    },
    "model": {"recipe": "gpt2-124m", "n_layer": 12},
    "micro_batch": 2,
    "sequence_length": 1024,
    "accumulate": 1,
    "matrix_flops_before_and_after": [1e12, 0.85e12],
    "why_only_ours": None,
    "rungs": [
        {"name": "fp32", "title": "fp32"} | MEASURED,
        {"name": "tf32", "title": "TF32", "skipped": "a mode of CUDA GPUs, and [this] is none"},
        {"name": "ours", "title": "ours"} | OURS,
    ],
}


def test_a_piped_table_is_plain_lines(capsys):
    print_table(LADDER, Path("bench"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "gpt2-124m, 12 layers, 2 x 1024 tokens a step · a $1 chip, 2 threads, torch 2.13.0"
    assert lines[1] == "matrix limit: 1.00 TFLOP/s (measured)"
    assert " ".join(lines[3].split()) == "rung ms/step tokens/s of limit ratio peak memory first step"
    assert " ".join(lines[4].split()) == "fp32 5,000.0 410 33.3% 1.00 4.34 GB 7.2 s"
    assert lines[5].split() == ["TF32", "skipped"]
    assert lines[6].split()[4] == "2.50"
    assert lines[7] == "skipped: TF32: a mode of CUDA GPUs, and [this] is none"
    assert lines[8] == "ours: not compiled: no g++"
    assert "1e-03 at most at the first step, by 0e+00 at the last" in lines[9]
    assert lines[10] == "bench/ladder.json  bench/ladder.png"
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_table_with_a_rule(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    print_table(LADDER, Path("bench"))
    assert "──" in sys.stdout.getvalue()
    assert "\x1b[1m" in sys.stdout.getvalue()


def test_several_micro_batches_are_named():
    assert "4 x (2 x 1024) tokens a step" in headlines(LADDER | {"accumulate": 4})[0]


def test_one_rung_has_no_other_to_differ_from():
    assert footnotes(LADDER | {"rungs": LADDER["rungs"][:1]}) == []


PARTS = {
    "optimizer": {"ms_per_step": 1000.04, "share_of_step": 0.2},
    "orthogonalisation": {"ms_per_step": 900.0, "share_of_step": 0.18},
}
ALONE = LADDER | {
    "model": {"recipe": "a-recipe", "n_layer": 2, "network": "nanochat", "optimizer": "muon"},
    "why_only_ours": "there is nothing to compare with",
    "rungs": [{"name": "ours", "title": "ours"} | MEASURED | {"parts": PARTS}],
}


def test_our_rung_alone_says_why_and_what_its_update_takes():
    assert headlines(ALONE)[0].startswith("a-recipe (nanochat with muon), 2 layers, ")
    assert footnotes(ALONE) == [
        "only ours: there is nothing to compare with",
        "ours: of each step, optimizer 1,000.0 ms (20.0%), within it orthogonalisation 900.0 ms (18.0%)",
    ]


def texts(ladder, monkeypatch):
    """What stands in the picture."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **more: drawn.append(self))
    picture(ladder)
    return [text.get_text() for text in drawn[0].findobj(Text)]


def test_a_picture_of_one_bar_compares_it_with_nothing(monkeypatch):
    alone, several = texts(ALONE, monkeypatch), texts(LADDER, monkeypatch)
    assert "Tokens a second" in alone
    assert "only ours: there is nothing to compare with" in alone
    assert any("within it orthogonalisation" in text for text in alone)
    assert "4.34 GB" in alone
    assert not any("×" in text or "top one" in text for text in alone)
    assert "Tokens a second, rung by rung" in several
    assert "2.50×   4.34 GB" in several


@pytest.mark.parametrize(
    "ladder",
    [LADDER, ALONE, *(LADDER | {"rungs": rungs} for rungs in (LADDER["rungs"][:1], LADDER["rungs"][:2] * 8))],
)
def test_the_picture_is_a_png(ladder):
    assert picture(ladder).startswith(b"\x89PNG")


def test_a_machine_that_was_busy_at_one_end_is_named():
    busy = LADDER | {"matrix_flops_before_and_after": [0.4e12, 1e12]}
    assert "its matrix limit was 0.40 TFLOP/s before the rungs and 1.00 after" in footnotes(busy)[2]


def test_updates_that_a_scaler_left_out_are_named():
    fp16 = {"name": "fp16", "title": "fp16"} | MEASURED | {"skipped_updates": 1}
    (note,) = footnotes(LADDER | {"rungs": [fp16], "matrix_flops_before_and_after": [1e12, 1e12]})
    assert note.startswith("fp16: fp16's scaler left 1 update out")
