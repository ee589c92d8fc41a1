"""Other programs' logs: each line lands on the step that it is of, and damage is counted or refused."""

import math

import pytest

from myna.errors import DataError
from myna.evaluate.logs import read_log

# The first lines of KellerJordan/modded-nanogpt, records/2024-10-13_llmc/main.log.
LLMC = """\
s:0 tel:11.0092
s:0 trl:11.0091 lr:0.000001 norm:15.37
s:1 trl:10.9598 lr:0.000002 norm:15.24
s:1 eval:0.2463
s:2 tel:10.9001
"""
BUILD_NANOGPT = """\
0 val 10.9511
0 hella 0.2463
0 train 10.955029
1 train 10.854980
2 val 10.7001
"""
NANOGPT = """\
Overriding: device = cpu
tokens per iteration will be: 16,384
found vocab_size = 65 (inside data/shakespeare_char/meta.pkl)
step 0: train loss 4.2874, val loss 4.2823
iter 0: loss 4.2654, time 900.00ms, mfu -100.00%
iter 10: loss 3.2000, time 42.00ms, mfu 3.50%
step 250: train loss 2.4, val loss 2.5
saving checkpoint to out-shakespeare-char
"""


@pytest.fixture
def log(tmp_path):
    def read(content):
        path = tmp_path / "log.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_log(path)

    return read


def series(found, key):
    return {record["step"]: record[key] for record in found.records if key in record}


def test_llmc_counts_an_update_from_0_and_an_evaluation_by_the_updates_before_it(log):
    found = log(LLMC)
    assert (found.program, found.lines, found.others, found.cut) == ("llm.c", 5, 0, False)
    assert series(found, "val_loss") == {0: 11.0092, 2: 10.9001}
    assert series(found, "train_loss") == {1: 11.0091, 2: 10.9598}
    assert series(found, "learning_rate") == {1: 1e-6, 2: 2e-6}
    assert series(found, "grad_norm") == {1: 15.37, 2: 15.24}
    assert series(found, "hellaswag_acc_token") == {1: 0.2463}
    assert found.with_tokens(10)[-1]["tokens"] == 20


def test_older_and_other_forms_of_llmcs_lines_are_read(log):
    found = log("s:1 trl:10.955100\ns:2 trl:10.9551 lr:8.57e-07 norm:15.3\n")
    assert series(found, "train_loss") == {2: 10.9551, 3: 10.9551}
    assert series(found, "learning_rate") == {3: 8.57e-07}


def test_build_nanogpts_log(log):
    found = log(BUILD_NANOGPT)
    assert found.program == "build-nanogpt"
    assert series(found, "val_loss") == {0: 10.9511, 2: 10.7001}
    assert series(found, "train_loss") == {1: 10.955029, 2: 10.85498}
    assert series(found, "hellaswag_items") == {0: 10_042}


def test_what_nanogpt_prints(log):
    found = log(NANOGPT)
    assert (found.program, found.batch_tokens, found.others) == ("nanoGPT", 16_384, 3)
    assert series(found, "val_loss") == {0: 4.2823, 250: 2.5}
    assert series(found, "train_loss") == {1: 4.2654, 11: 3.2}
    assert series(found, "mfu") == {11: 0.035}
    assert found.with_tokens(16_384)[2] == {
        "step": 11, "tokens": 180_224, "train_loss": 3.2, "seconds": 0.042, "mfu": 0.035, "tokens_per_second": 390_095.2
    }  # fmt: skip


def test_nanogpts_evaluations_alone_have_a_training_loss_too(log):
    found = log("step 0: train loss 4.2874, val loss 4.2823\nstep 250: train loss 2.4, val loss 2.5\n")
    assert series(found, "train_loss") == {0: 4.2874, 250: 2.4}


def test_lines_end_as_other_systems_end_them(log):
    assert log(BUILD_NANOGPT.replace("\n", "\r\n")).records == log(BUILD_NANOGPT).records


def test_a_line_without_an_end_is_left_out(log):
    """A crash may have cut its number, which nobody would see."""
    found = log(BUILD_NANOGPT + "2 train 10.7")
    assert found.cut
    assert found.records == log(BUILD_NANOGPT).records


def test_damaged_lines_are_counted(log):
    found = log(BUILD_NANOGPT + "\0\0\0\n3 tra\n3 train -5.0\n3 hella 24.63\n\n3 train 10.5\n")
    assert (found.lines, found.others, found.first_other) == (6, 4, 6)
    assert series(found, "train_loss")[4] == 10.5


def test_a_loss_that_is_no_number_stays(log):
    assert math.isnan(series(log(BUILD_NANOGPT + "2 train nan\n"), "train_loss")[3])


def test_of_steps_that_a_resumed_run_writes_again_the_later_counts(log):
    found = log(BUILD_NANOGPT + "1 train 9.5\n2 train 9.4\n")
    assert found.twice == 1
    assert series(found, "train_loss") == {1: 10.955029, 2: 9.5, 3: 9.4}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is nothing that can be imported"),
        ("To be, or not to be\n" * 50, "is nothing that can be imported"),
        (b"\x00\xff" * 500_000, "is nothing that can be imported"),
        ("0 val 10.9", "is nothing that can be imported"),
        ("0 hella 0.25\n", "has no loss, only accuracies"),
        (BUILD_NANOGPT + "word\n" * 6, "has 5 lines of build-nanogpt's log, and 6 others, the first in line 6"),
        (BUILD_NANOGPT + LLMC, "holds lines of build-nanogpt, and line 6 is one of llm.c"),
        (BUILD_NANOGPT * 2, "line 6: the steps begin again at 0 after step 2, so these are two runs"),
        (NANOGPT + "tokens per iteration will be: 512\n", "line 2 states 16,384 tokens a step, and line 9 512"),
        (NANOGPT + "tokens per iteration will be: 0\n", "states 16,384 tokens"),
        ("tokens per iteration will be: 0\n" + NANOGPT, "line 1: 0 tokens a step cannot be"),
    ],
)  # fmt: skip
def test_what_is_no_log_of_one_run_is_refused(log, content, says):
    with pytest.raises(DataError, match="log") as told:
        log(content)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_a_step_that_is_too_far_is_refused(log):
    with pytest.raises(DataError, match="too far to be true"):
        log(BUILD_NANOGPT + "999999999999999 val 3.0\n").with_tokens(524_288)
