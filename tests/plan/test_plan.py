"""`myna plan`: what it computes against formulas written out here, against a published run, and against the docs."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from myna import cli
from myna.gpus import GPUS
from myna.model import loss
from myna.plan import memory
from myna.plan.assumptions import DEFAULTS, assume
from myna.plan.memory import Setting, parts, shape_of
from myna.plan.run import plan
from myna.plan.traffic import traffic
from myna.recipes import RECIPES, named

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"
SIZES = {
    "gpt2-124m": 124_439_808,
    "gpt2-355m": 354_823_168,
    "gpt2-774m": 774_030_080,
    "gpt2-1558m": 1_557_611_200,
}


def answer(capsys, *args: str):
    """What `--json` prints."""
    assert cli.main(["plan", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def printed(capsys, *args: str) -> str:
    assert cli.main(["plan", *args]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def small():
    return shape_of(named("gpt2-124m"), 50257)


def test_llmc_published_run_is_met_within_a_fifth(capsys):
    """llm.c: 45 minutes on 8 H100; the MFU of 41% is what these minutes come to for its 19,560 steps."""
    implied = 855_166_464 * 19_560 * 524_288 / (8 * 989e12 * 45 * 60)
    assert implied == pytest.approx(0.41, abs=0.002)
    found = answer(capsys, "gpt2-124m", "--gpus", "8", "--gpu", "h100", "--mfu", "0.41")
    assert found["hours"] * 60 == pytest.approx(45, rel=0.2)
    assert found["flops"] == pytest.approx(8.55e18, rel=0.001)
    said = printed(capsys, "gpt2-124m", "--gpus", "8", "--gpu", "h100", "--mfu", "0.41")
    assert re.search(r"^with the default MFU of 40%: 4\d\.\d minutes", said, re.MULTILINE)
    assert "with the default MFU" not in printed(capsys, "gpt2-124m")


@pytest.mark.parametrize(("name", "parameters"), SIZES.items())
def test_hours_and_money_are_the_arithmetic_written_out(name, parameters, capsys):
    recipe = named(name)
    found = answer(capsys, name, "--gpus", "1", "--gpu", "h100")
    assert found["network"]["parameters"] == parameters
    per_token = 6 * (parameters - 1024 * recipe.n_embd) + 12 * recipe.n_layer * recipe.n_embd * 1024
    step = per_token * recipe.batch_tokens / (989e12 * 0.4)
    assert found["compute_seconds"] == pytest.approx(step)
    update = 28 * found["network"]["weight_bytes"] / 4 / 3350e9
    assert found["train_hours"] == pytest.approx((step + update) * recipe.steps / 3600)
    assert (found["traffic"], found["waited_seconds"]) == ([], 0)
    validations = -(-recipe.steps // 250)
    forward = validations * 10_485_760 * per_token / 3
    forward += validations * 10_042 * 67 * 2 * (parameters - 1024 * recipe.n_embd)
    assert found["evaluation_hours"] == pytest.approx(forward / (989e12 * 0.2) / 3600)
    assert found["gpu_usd"] == pytest.approx(found["hours"] * 2.5)
    assert found["checkpoint_bytes"] == 4 * parameters + found["network"]["state_bytes"]
    assert found["usd"] == pytest.approx(found["gpu_usd"] + found["prepare_usd"] + found["storage_usd"])


def test_the_corpus_is_downloaded_tokenized_and_kept(capsys):
    found = answer(capsys, "gpt2-124m", "--prepare-cores", "2", "--tokens", "10e9")
    corpus = found["corpus"]
    assert corpus["tokenize_hours"] * 3600 == pytest.approx(46.7e9 / 125.6e6)
    assert corpus["shard_bytes"] == 20e9
    assert found["storage_usd"] == pytest.approx((20 + 20 * found["checkpoint_bytes"] / 1e9) * 0.023)


@pytest.mark.parametrize(
    ("tokens", "name", "in_corpus"),
    [("1e9", "fineweb-edu", 1e10), ("1e11", "fineweb-edu:sample-100BT", 1e11),
     ("3e11", "fineweb-edu:sample-350BT", 3.5e11), ("1.3e12", "fineweb-edu:full", 1.3e12),
     ("2.6e12", "fineweb-edu:full", 1.3e12)],
)  # fmt: skip
def test_tokens_choose_the_part_of_fineweb_edu_that_has_them(tokens, name, in_corpus, capsys):
    found = answer(capsys, "gpt2-124m", "--tokens", tokens)
    assert (found["corpus"]["name"], found["corpus"]["tokens"]) == (name, in_corpus)
    assert 0 <= float(tokens) - found["tokens"] < 524_288
    assert found["epochs"] == pytest.approx(float(tokens) / in_corpus, rel=1e-3)


def test_ddp_sends_all_gradients_in_a_ring(small):
    assumptions = assume("h100", "auto", {})
    setting = Setting(8, False, False, 16, 4, 1024, True)
    nvlink, pcie = (traffic(small, setting, assumptions, 0.12, link) for link in ("nvlink", "pcie"))
    assert nvlink.gb == pytest.approx(2 * 7 / 8 * small.weight_bytes / 1e9)
    assert nvlink.seconds == pytest.approx(nvlink.gb / (450 * 0.8))
    assert pcie.seconds / nvlink.seconds == pytest.approx(450 / 64)
    embedding = 2 * 7 / 8 * small.root_bytes / 1e9 / (450 * 0.8)
    assert nvlink.waited == pytest.approx(embedding)  # 20 ms of backward pass hide the blocks' 1.7 ms
    busy = traffic(small, setting, assumptions, 0.0006, "nvlink")
    assert busy.waited == pytest.approx(busy.seconds - 0.0006 / 4 * 2 / 3)


def test_between_machines_the_network_is_the_slower(small):
    setting = Setting(16, False, False, 16, 2, 1024, True)
    for gbit, speed in ((3200, 400), (100, 12.5), (80_000, 450)):
        found = traffic(small, setting, assume("h100", "auto", {"network_gbit_per_s": gbit}), 0.1, "nvlink")
        assert found.gb_per_s == pytest.approx(speed * 0.8)


def test_fsdp_gathers_for_each_micro_batch_and_scatters_once(small):
    setting = Setting(8, True, False, 16, 4, 1024, True)
    found = traffic(small, setting, assume("h100", "auto", {}), 0.1, "nvlink")
    blocks = small.weight_bytes - small.root_bytes
    assert found.gb == pytest.approx(7 / 8 * (4 * (2 * blocks + small.root_bytes) + small.weight_bytes) / 1e9)
    assert found.waited < found.seconds


def test_memory_is_sixteen_bytes_a_parameter_and_what_a_step_adds(small):
    setting = Setting(8, False, False, 64, 1, 1024, True)
    gb = parts(small, setting, 80, 3)
    assert gb["weights"] + gb["gradients"] + gb["optimizer"] == pytest.approx(4 * small.weight_bytes / 1e9)
    assert gb["activations"] == pytest.approx(34 * 768 * 12 * 64 * 1024 / 1e9)
    again = parts(small, replace(setting, recompute=True), 80, 3)
    assert again["activations"] == pytest.approx((4 * 12 + 34) * 768 * 64 * 1024 / 1e9)
    sharded = parts(small, replace(setting, sharded=True), 80, 3)
    for name in ("weights", "optimizer", "gradients"):
        assert sharded[name] == pytest.approx(gb[name] / 8)
    assert parts(small, replace(setting, sharded=True, accumulate=2), 80, 3)["gradients"] == gb["gradients"]
    assert parts(small, replace(setting, half=False), 80, 3)["activations"] == 2 * gb["activations"]


def test_a_measured_peak_on_a_cpu_is_near_what_is_computed(small):
    """docs/performance.md: ours eager and compiled, 2 x 1024 tokens: 3.27 and 2.92 GB, of which 2.2 is there before."""
    gb = parts(small, Setting(1, False, False, 2, 1, 1024, True), None, 0)
    assert 0.7 < gb["activations"] + gb["logits, the head's gradient"] < 1.1


def test_logits_held_at_once_are_those_of_the_head(monkeypatch):
    class Device:
        total_memory = 80_000_000_000

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Device)
    assert loss._chunk_bytes(torch.device("cuda")) == Device.total_memory // memory.LOGITS_SHARE


@pytest.mark.parametrize(
    ("args", "sharded", "recompute", "fits"),
    [
        (["gpt2-1558m", "--gpu", "h100"], False, False, True),
        (["gpt2-1558m", "--gpu", "rtx-4090"], True, False, True),
        (["gpt2-1558m", "--gpu", "rtx-4090", "--gpus", "1"], False, True, False),
        (["gpt2-774m", "--gpu", "rtx-4090", "--gpus", "1", "--micro-batch", "8"], False, True, True),
        (["gpt2-124m", "--gpu", "other", "--peak-tflops", "100"], False, False, None),
    ],
)
def test_what_fits_and_what_it_needs(args, sharded, recompute, fits, capsys):
    found = answer(capsys, *args)
    assert (found["setting"]["sharded"], found["setting"]["recompute"], found["fits"]) == (
        sharded,
        recompute,
        fits,
    )
    memory_gb = found["assumptions"]["memory_gb"]["value"]
    if fits is not None:
        assert (sum(found["memory_gb"].values()) <= memory_gb) == fits
    said = printed(capsys, *args)
    assert ("DOES NOT FIT" in said) == (fits is False)
    assert ("--memory-gb to learn whether it fits" in said) == (fits is None)


def test_every_recipe_with_a_tokenizer_of_its_own_has_a_plan():
    assumptions = assume("a100", "auto", {})
    for name in RECIPES:
        recipe = named(name)
        if recipe.tokenizer != "from-init":
            assert plan(recipe, 50257, 1, assumptions).hours > 0


@pytest.mark.parametrize("gpu", GPUS)
def test_every_gpu_has_what_a_plan_needs(gpu):
    assumptions = assume(gpu, "auto", {})
    assert assumptions.precision == ("bf16" if GPUS[gpu].bf16 else "fp16")
    assert all(
        assumptions[name] > 0 for name in ("peak_tflops", "memory_gb", "bandwidth_gb_per_s", "pcie_gb_per_s")
    )


def test_every_number_is_printed_with_its_flag_and_source(capsys):
    said = printed(capsys, "gpt2-124m", "--mfu", "0.3")
    for name, number in DEFAULTS.items():
        line = next(line for line in said.split("\n") if line.split()[:1] == [f"--{name.replace('_', '-')}"])
        assert ("given" if name == "mfu" else number.source) in line
    assert "Measured by this project: --prepare-mb-per-s." in said
    assert "Nothing was measured on a GPU" in said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["gpt2-124m", "--gpu", "h1000"], r"no GPU 'h1000'; did you mean h100\? There are: b200, .* --peak-tflops"),
        (["gpt2-124m", "--gpus", "1024"], "512 sequences is less than one for each of 1,024 GPUs; .*--gpus 512"),
        (["gpt2-124m", "--gpus", "3"], "a batch of 512 sequences does not divide among 3 ranks"),
        (["gpt2-124m", "--gpus", "0"], "--gpus is 0; give 1"),
        (["gpt2-124m", "--micro-batch", "3"], "micro-batches of 3"),
        (["gpt2-124m", "--gpu", "v100", "--precision", "bf16"], "v100 has no bf16; give another --precision"),
        (["gpt2-124m", "--mfu", "41"], "--mfu is 41; it is a share"),
        (["gpt2-124m", "--months=-1"], "--months is -1; give 0 or more"),
        (["gpt2-124m", "--prepare-cores", "nan"], "--prepare-cores is nan"),
        (["gpt2-124m", "--tokens", "1000"], "--tokens is 1000; give at least the 524,288"),
        (["gpt2-124m", "--batch-tokens", str(1 << 40)], "--batch-tokens is 1099511627776; give at most"),
        (["gpt2-142m"], "did you mean gpt2-124m"),
        (["chat-124m"], "chat-124m takes its vocabulary"),
        ([], "name a recipe"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_line_and_exit_2(args, says, capsys):
    assert cli.main(["plan", *args]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert re.search(says, said.err)


def test_of_several_one_that_cannot_be_is_a_row(capsys):
    args = ["gpt2-124m", "gpt2-1558m", "--gpus", "512", "1024"]
    rows = printed(capsys, *args).split("\n")[1:5]
    assert [row.split()[0] for row in rows] == ["gpt2-124m", "gpt2-124m", "gpt2-1558m", "gpt2-1558m"]
    assert ["less than one" in row for row in rows] == [False, True, False, False]
    assert ["why" in one and "hours" not in one for one in answer(capsys, *args)] == [
        False,
        True,
        False,
        False,
    ]


def shown():
    """Every call of `myna plan` on the page that has its output below it."""
    text = PAGE.read_text("utf-8")
    found = re.findall(r"^ {4}myna plan ([^\n]*)\n\n```text\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    return [pytest.param(args, output, id=args) for args, output in found]


def test_the_page_shows_outputs():
    assert len(shown()) >= 3


@pytest.mark.parametrize(("args", "output"), shown())
def test_what_the_page_shows_is_what_the_command_prints(args, output, capsys):
    """Where the page ends with a line of dots, the rest is left out."""
    said = printed(capsys, *shlex.split(args))
    if output.endswith("...\n"):
        output, said = output.removesuffix("...\n"), said[: len(output) - 4]
    assert output == said


@pytest.mark.parametrize("name", list(SIZES))
def test_the_page_says_what_eight_ranks_wait_for(name, capsys):
    found = answer(capsys, name, "--gpus", "8", "--gpu", "h100")
    busy = found["compute_seconds"] + found["update_seconds"]
    cells = [f"`{name}`", f"{1e3 * found['compute_seconds'] / found['setting']['accumulate']:,.0f} ms"]
    for one in found["traffic"]:
        shares = (f"{seconds / (busy + seconds):.1%}" for seconds in (one["waited"], one["seconds"]))
        cells += [f"{1e3 * one['waited']:.1f} of {1e3 * one['seconds']:.1f} ms", *shares]
    row = f"| {' | '.join(cells)} |"
    assert row in PAGE.read_text("utf-8").splitlines(), row
