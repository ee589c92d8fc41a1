import warnings

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as attend

from myna import device as devices
from myna.device import Precision, apply_precision, resolve_device, resolve_precision
from myna.errors import DeviceError

MPS = torch.device("mps")


def raise_(text):
    raise RuntimeError(text)


def only(monkeypatch, *, cuda=False, mps=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def on_apples_gpu(monkeypatch, **failing):
    """A trial on MPS that fails in some precisions, with a reason."""
    monkeypatch.setattr(devices, "what_fails", lambda name, device: failing.get(name, ""))


@pytest.fixture
def probed(monkeypatch):
    """The trial itself, made on the CPU; nothing of it is remembered."""
    monkeypatch.setattr(devices, "what_fails", devices.what_fails.__wrapped__)


def test_auto_takes_the_cpu_where_there_is_nothing_else(monkeypatch):
    only(monkeypatch)
    assert resolve_device("auto") == torch.device("cpu")


def test_on_a_machine_with_mps_device_and_autocast_are_mps(monkeypatch):
    only(monkeypatch, mps=True)
    on_apples_gpu(monkeypatch)
    device = resolve_device("auto")
    assert device == torch.device("mps")
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        context = resolve_precision(name, device).autocast(device)
        assert (context.device, context.fast_dtype) == ("mps", dtype)


@pytest.mark.parametrize(
    ("failing", "expected", "reason"),
    [
        ({}, "bf16", "a trial of attention works in it"),
        ({"bf16": "no bfloat16"}, "fp16", "works in it, bf16 does not: no bfloat16"),
        ({"bf16": "no bfloat16", "fp16": "no scaler"}, "fp32", "bf16 does not: no bfloat16; fp16 does not: no scaler"),
        ({"fp16": "no scaler"}, "bf16", "a trial of attention works in it"),
    ],
)  # fmt: skip
def test_on_mps_auto_takes_what_works_and_the_rest_is_refused_by_name(monkeypatch, failing, expected, reason):
    on_apples_gpu(monkeypatch, **failing)
    chosen = resolve_precision("auto", MPS)
    assert chosen.name == expected
    assert chosen.reason.endswith(reason)
    for name in ("bf16", "fp16", "fp32"):
        if name not in failing:
            assert resolve_precision(name, MPS).name == name
            continue
        with pytest.raises(
            DeviceError, match=f"--precision {name} does not .* {failing[name]}; use {expected}"
        ):
            resolve_precision(name, MPS)


def test_where_nothing_works_mps_is_refused(monkeypatch):
    on_apples_gpu(monkeypatch, bf16="a", fp16="b", fp32="no kernel")
    with pytest.raises(DeviceError, match="fails in fp32 on this machine: no kernel; use --device cpu"):
        resolve_precision("auto", MPS)


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_the_trial_passes_where_a_precision_works(probed, name):
    assert devices.what_fails(name, torch.device("cpu")) == ""


@pytest.mark.parametrize(
    ("attention", "says"),
    [
        (lambda q, k, v, is_causal: raise_("no kernel\nand a trace"), "no kernel"),
        (lambda q, k, v, is_causal: attend(q, k, v), "comes out wrong"),  # as a kernel that forgets the mask
        (lambda q, k, v, is_causal: attend(q, k, v, is_causal=is_causal) * torch.nan, "comes out wrong"),
        (lambda q, k, v, is_causal: attend(q, k.detach(), v, is_causal=is_causal), "comes out wrong"),  # a gradient
    ],
)  # fmt: skip
def test_the_trial_finds_what_fails(probed, monkeypatch, attention, says):
    calls = []

    def on_the_device(*args, is_causal):
        calls.append(args)
        return (attend if len(calls) == 1 else attention)(
            *args, is_causal=is_causal
        )  # the first is the CPU's own

    monkeypatch.setattr(devices, "scaled_dot_product_attention", on_the_device)
    assert devices.what_fails("bf16", torch.device("cpu")).endswith(says)


def test_the_trial_finds_an_autocast_that_turns_itself_off(probed, monkeypatch):
    def off(self, device):
        if self.dtype is not None:
            warnings.warn(
                "In MPS autocast, but the target dtype is not supported. Disabling autocast.", stacklevel=2
            )
        return torch.autocast("cpu", enabled=False)

    monkeypatch.setattr(Precision, "autocast", off)
    assert devices.what_fails("bf16", torch.device("cpu")).startswith("In MPS autocast")


def test_auto_takes_this_ranks_gpu(monkeypatch):
    only(monkeypatch, cuda=True, mps=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto", local_rank=1) == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match="local rank 2 has no GPU"):
        resolve_device("auto", local_rank=2)


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    only(monkeypatch)
    with pytest.raises(DeviceError, match=f"--device {name}"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("capability", "name", "expected"),
    [
        ((9, 0), "auto", "bf16"),
        ((8, 0), "auto", "bf16"),
        ((7, 5), "auto", "fp16"),
        ((7, 0), "fp16", "fp16"),
        ((8, 6), "tf32", "tf32"),
    ],
)
def test_precision_on_cuda(monkeypatch, capability, name, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    assert resolve_precision(name, torch.device("cuda", 0)).name == expected


@pytest.mark.parametrize("name", ["bf16", "tf32"])
def test_a_gpu_without_it_is_told(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "V100")
    with pytest.raises(DeviceError, match=r"V100.*use fp16"):
        resolve_precision(name, torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"amx_bf16", "sse"}, "bf16"), ({"avx512_bf16"}, "bf16"), ({"avx2"}, "fp32"), (set(), "fp32")],
)
def test_auto_precision_on_a_cpu_is_by_its_instructions(monkeypatch, flags, expected):
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset(flags))
    assert resolve_precision("auto", torch.device("cpu")).name == expected


def test_tf32_without_cuda_is_refused():
    with pytest.raises(DeviceError, match="mode of CUDA"):
        resolve_precision("tf32", torch.device("cpu"))


@pytest.fixture
def precision_put_back():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_tf32_is_on_for_a_gpu_by_a_setting_that_all_of_torch_can_read(precision_put_back):
    """Warnings are errors here, and what was set one way raises where it is read the other."""
    for name, fp32, tf32 in (("bf16", "tf32", True), ("fp32", "ieee", False), ("tf32", "tf32", True)):
        apply_precision(Precision(name, ""), torch.device("cuda"))
        assert torch.backends.cuda.matmul.fp32_precision == fp32
        assert torch.backends.cuda.matmul.allow_tf32 == tf32
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")


def test_elsewhere_products_are_left_alone(precision_put_back):
    torch.set_float32_matmul_precision("highest")
    apply_precision(Precision("bf16", ""), torch.device("cpu"))
    assert torch.get_float32_matmul_precision() == "highest"
