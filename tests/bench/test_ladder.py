import dataclasses

import pytest

from myna.bench.ladder import LADDER, Machine, Rung, chosen, missing, switches, why_only_ours
from myna.errors import UsageError
from myna.model.config import GPTConfig
from myna.recipes import named
from myna.settings import NO_OPTIONS

CPU = Machine("cpu", "a processor", None, ("amx_bf16",), ("amx_fp16",), "2.13.0", 2, 1e12, "measured")
BF16_CPU = dataclasses.replace(CPU, fp16_instructions=())
OLD_CPU = dataclasses.replace(BF16_CPU, bf16_instructions=())
H100 = dataclasses.replace(OLD_CPU, device="cuda", name="an H100", capability=(9, 0))
T4 = dataclasses.replace(H100, name="a T4", capability=(7, 5))
MPS = dataclasses.replace(OLD_CPU, device="mps", name="a laptop")


def rung(name: str) -> Rung:
    return next(rung for rung in LADDER if rung.name == name)


@pytest.mark.parametrize(
    ("machine", "names"),
    [
        (CPU, {"tf32"}),
        (BF16_CPU, {"tf32", "fp16"}),
        (OLD_CPU, {"tf32", "fp16", "bf16"}),
        (H100, set()),
        (T4, {"tf32", "bf16"}),
        (MPS, {"tf32", "fp16", "bf16"}),
    ],
)
def test_what_a_machine_does_not_have(machine, names):
    assert {rung.name for rung in LADDER if missing(rung, machine, GPTConfig())} == names


def test_the_reason_names_what_is_there():
    assert missing(rung("tf32"), T4, GPTConfig()) == "needs compute capability 8.0, and a T4 has 7.5"
    assert "the device is cpu" in missing(rung("tf32"), CPU, GPTConfig())
    assert "no instructions" in missing(rung("bf16"), OLD_CPU, GPTConfig())


def test_a_vocabulary_that_needs_no_padding_has_no_such_rung():
    assert "4,096 ids" in missing(rung("padded-vocabulary"), CPU, GPTConfig(vocab_size=4096))


def test_each_rung_adds_one_change():
    before = [False] * 7
    for number, rung in enumerate(LADDER[1:-1]):
        now = list(dataclasses.astuple(switches(rung.name)))
        assert [i for i in range(7) if now[i] != before[i]] == [number]
        before = now


def test_a_machine_that_lacks_a_change_goes_on_without_it():
    on = switches("fused-adamw", without=["tf32", "compile"])
    assert dataclasses.astuple(on) == (False, True, True, False, True, True, True)


def test_rungs_are_chosen_in_the_ladders_order():
    assert [rung.name for rung in chosen("ours, bf16,fp32,")] == ["fp32", "bf16", "ours"]
    assert chosen(None) == LADDER


def test_another_network_or_optimizer_has_the_last_rung_alone():
    assert why_only_ours(named("gpt2-124m")) is None
    why = why_only_ours(named("speedrun-124m"))
    assert why == "the lecture's rungs are GPT-2 with AdamW, and this is nanochat with muon"
    assert why_only_ours(
        dataclasses.replace(named("gpt2-124m"), network="nanochat", network_options=NO_OPTIONS)
    )
    assert chosen(None, why) == chosen("ours", why) == LADDER[-1:]
    with pytest.raises(UsageError, match="nanochat with muon; leave --rungs out, or give ours"):
        chosen("fp32", why)


@pytest.mark.parametrize(("names", "says"), [("fp32,bf61", "did you mean bf16"), (" , ", "names none")])
def test_an_unknown_rung_is_refused(names, says):
    with pytest.raises(UsageError, match=says):
        chosen(names)


def test_a_machine_survives_json():
    assert Machine.from_json(dataclasses.asdict(H100) | {"capability": [9, 0]}) == H100
