"""Weights as they are stored for generation and scoring: in bf16, or in int8 with a scale for each row.

To write one id, every weight is read once, so the time of an id is the bytes of the weights over the speed of the
memory: half of the bytes is half of the time. The arithmetic follows the storage:

    fp32  as trained; `--precision` may multiply in less
    bf16  products in bf16, added up in fp32; the residual stream, norms and position embeddings stay fp32
    int8  w is about scale * q, with q a whole number of -127 to 127 and one scale for each output. The inputs are
          rounded in the same way, with one scale for each token, and the products are whole numbers: exact, whoever
          else is in the batch. About a byte a weight; `myna eval --weights int8` says what it costs in loss

Token embeddings and head are stored like the rest, tied or not.

Source of the rounding: Dettmers et al. 2022, arXiv:2208.07339, section 2.1 ("absmax", vector-wise).
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from myna.device import BF16_INSTRUCTIONS, cpu_flags
from myna.errors import DeviceError
from myna.model.network import Network
from myna.settings import WeightsName


class Matrix(ABC):
    """A weight matrix (N, C), to multiply with and to look rows up in.

    Attributes:
        dtype: of the products.
        n_columns: C.
    """

    dtype: torch.dtype
    n_columns: int

    @abstractmethod
    def __init__(self, weight: Tensor): ...

    @abstractmethod
    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (..., C) to (..., N), in `dtype`."""

    @abstractmethod
    def rows(self, ids: Tensor) -> Tensor:
        """ids (...) to (..., C), fp32."""


class Bf16Matrix(Matrix):
    """Half the bytes of fp32, rounded once."""

    dtype = torch.bfloat16

    def __init__(self, weight: Tensor):
        self.weight = weight.detach().to(torch.bfloat16)
        self.n_columns = weight.shape[1]

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """See `Matrix`."""
        return F.linear(x.to(torch.bfloat16), self.weight, bias)

    def rows(self, ids: Tensor) -> Tensor:
        """See `Matrix`."""
        return F.embedding(ids, self.weight).float()


class Int8Matrix(Matrix):
    """A quarter of the bytes: see the module's text."""

    dtype = torch.float32

    def __init__(self, weight: Tensor):
        weight = weight.detach().float()
        self.scales = _scales(weight)  # (N, 1)
        self.values = _rounded(weight, self.scales)
        self.column_scales = self.scales.squeeze(1)
        if weight.device.type == "cuda":  # whose kernel takes multiples of 8
            self.values = F.pad(self.values, (0, -weight.shape[1] % 8, 0, -weight.shape[0] % 8))
        self.n_columns, self.n_rows = weight.shape[1], weight.shape[0]

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """See `Matrix`."""
        flat = x.reshape(-1, x.shape[-1]).float()
        scales = _scales(flat)  # (B, 1)
        rounded = _rounded(flat, scales)
        if x.device.type == "cuda":  # whose kernel takes 17 rows or more
            missing_rows = max(0, 17 - len(flat))
            rounded = F.pad(rounded, (0, self.values.shape[1] - self.n_columns, 0, missing_rows))
        whole = torch._int_mm(rounded, self.values.t())[: len(flat), : self.n_rows]
        y = whole * scales  # (B, N) fp32
        y = y * self.column_scales if bias is None else torch.addcmul(bias, y, self.column_scales)
        return y.view(*x.shape[:-1], -1)

    def rows(self, ids: Tensor) -> Tensor:
        """See `Matrix`."""
        return self.values[ids][..., : self.n_columns] * self.scales[ids]


def _scales(x: Tensor) -> Tensor:
    """One for each row of (N, C), (N, 1): what its largest number is 127 of. A row of zeros keeps its zeros."""
    return torch.linalg.vector_norm(x, ord=float("inf"), dim=1, keepdim=True).clamp_min_(1e-30).div_(127)


def _rounded(x: Tensor, scales: Tensor) -> Tensor:
    return (x / scales).round_().to(torch.int8)


class StoredLinear(nn.Module):
    """`nn.Linear` on a stored matrix."""

    bias: Tensor | None

    def __init__(self, linear: nn.Linear, matrix: Matrix):
        super().__init__()
        self.weight = matrix
        bias = linear.bias
        # Not a parameter: nothing here is trained or saved.
        self.register_buffer(
            "bias", None if bias is None else bias.detach().to(matrix.dtype), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.product(x, self.bias)


class StoredEmbedding(nn.Module):
    """`nn.Embedding` on a stored matrix."""

    def __init__(self, matrix: Matrix):
        super().__init__()
        self.weight = matrix

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight.rows(ids)


MATRICES: dict[str, type[Matrix]] = {"bf16": Bf16Matrix, "int8": Int8Matrix}


def store_weights(network: Network, weights: WeightsName) -> None:
    """Stores the products' weights of a network in bf16 or int8, in place; "fp32" leaves them.

    The network can then compute hidden states, logits and losses without gradients. It can no longer be trained or
    saved.

    Args:
        weights: not "auto"; see `resolve_weights`.
    """
    if weights == "fp32":
        return
    kind = MATRICES[weights]
    made: dict[Tensor, Matrix] = {}  # a tied matrix is stored once

    def stored(weight: Tensor) -> Matrix:
        if weight not in made:
            made[weight] = kind(weight)
        return made[weight]

    with torch.no_grad():
        for name, module in list(network.named_modules()):
            for child_name, child in list(module.named_children()):
                full = f"{name}.{child_name}.weight".lstrip(".")
                if isinstance(child, nn.Linear):
                    setattr(module, child_name, StoredLinear(child, stored(child.weight)))
                elif isinstance(child, nn.Embedding) and full in network.vocabulary_rows:
                    setattr(module, child_name, StoredEmbedding(stored(child.weight)))


def resolve_weights(name: WeightsName, device: torch.device) -> tuple[WeightsName, str]:
    """Settles `auto`: bf16 where the device multiplies in it, else fp32. And why, for people.

    Raises:
        DeviceError: int8 on a device without a kernel for it.
    """
    if device.type == "mps" and name == "int8":
        raise DeviceError("--weights int8 has no kernel on mps; use fp32 or bf16")
    if name != "auto":
        return name, "asked for"
    if device.type == "cuda":
        capable = torch.cuda.get_device_capability(device) >= (8, 0)
        return ("bf16", "the GPU multiplies in bf16") if capable else ("fp32", "the GPU has no bf16")
    fast = sorted(cpu_flags() & BF16_INSTRUCTIONS) if device.type == "cpu" else []
    if fast:
        return "bf16", f"the processor has {' and '.join(fast)}"
    return "fp32", f"no instructions for bf16 on this {'processor' if device.type == 'cpu' else 'device'}"


def times(x: Tensor, weight: Any) -> Tensor:
    """x (..., C) times a weight (N, C), stored or a tensor: (..., N)."""
    return weight.product(x) if isinstance(weight, Matrix) else F.linear(x, weight)
