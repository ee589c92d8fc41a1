import pytest
import torch

from myna import device as devices
from myna.device import Precision, apply_precision, resolve_device, resolve_precision
from myna.errors import DeviceError


def only(monkeypatch, *, cuda=False, mps=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_auto_takes_the_cpu_where_there_is_nothing_else(monkeypatch):
    only(monkeypatch)
    assert resolve_device("auto") == torch.device("cpu")


def test_on_a_machine_with_mps_device_and_autocast_are_mps(monkeypatch):
    only(monkeypatch, mps=True)
    device = resolve_device("auto")
    assert device == torch.device("mps")
    assert resolve_precision("auto", device).name == "fp32"
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        context = resolve_precision(name, device).autocast(device)
        assert (context.device, context.fast_dtype) == ("mps", dtype)


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
