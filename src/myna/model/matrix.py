"""One weight matrix, stored in fewer bytes than fp32, and the kernel that multiplies with it.

To write one id, every weight is read once, so the time of an id is the bytes of the weights over the speed of the
memory: half of the bytes is half of the time. The kernels are torch's. Which one a processor is fast at differs:

    bf16  CUDA, and processors with instructions for bf16. Others emulate it
    fp16  x86: fbgemm widens the weights to fp32 in the registers, and the inputs stay fp32. Fast for few ids
    int8  x86: fbgemm, with whole numbers from end to end. CUDA and the rest: `torch._int_mm`

docs/performance.md has the figures.
"""

import functools
import itertools
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from myna.errors import ModelError


class Matrix(ABC):
    """A weight matrix (N, C), to multiply with and to look rows up in.

    Args:
        looked_up: keep what `rows` needs, where the kernel's own form can't be read.

    Attributes:
        dtype: of the products.
        n_columns: C.
    """

    dtype: torch.dtype
    n_columns: int

    @abstractmethod
    def __init__(self, weight: Tensor, *, looked_up: bool = False): ...

    @abstractmethod
    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (..., C) to (..., N), in `dtype`."""

    @abstractmethod
    def rows(self, ids: Tensor) -> Tensor:
        """ids (...) to (..., C), fp32."""


class Bf16Matrix(Matrix):
    """Half the bytes of fp32, rounded once; inputs and outputs are bf16 too."""

    dtype = torch.bfloat16

    def __init__(self, weight: Tensor, *, looked_up: bool = False):
        self.weight = weight.detach().to(torch.bfloat16)
        self.n_columns = weight.shape[1]

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """See `Matrix`."""
        return F.linear(x.to(torch.bfloat16), self.weight, bias)

    def rows(self, ids: Tensor) -> Tensor:
        """See `Matrix`."""
        return F.embedding(ids, self.weight).float()


class Fp16Matrix(Matrix):
    """Half the bytes of fp32, rounded once, with 11 bits of precision where bf16 has 8; inputs and outputs are fp32.

    Raises:
        ModelError: a weight is larger than fp16 can hold.
    """

    dtype = torch.float32

    def __init__(self, weight: Tensor, *, looked_up: bool = False):
        half = weight.detach().to(torch.float16)
        if not bool(half.isfinite().all()):
            raise ModelError(
                f"--weights fp16 can't hold this model: a weight is {weight.abs().max():.3g}, and fp16 ends at 65504; "
                "use fp32 or bf16"
            )
        self.n_columns = weight.shape[1]
        self._packed = None
        if weight.device.type == "cpu" and has_fp16_kernel():
            self._packed = Prepacked(_fp16_product, packed_fp16(half.float()), weight.shape[0])
        self._half = half if looked_up or self._packed is None else None

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """See `Matrix`."""
        if self._packed is None:
            assert self._half is not None
            y = F.linear(x.to(torch.float16), self._half).float()
        else:
            y = self._packed.product(x.float())
        return y if bias is None else y.add_(bias)

    def rows(self, ids: Tensor) -> Tensor:
        """See `Matrix`."""
        assert self._half is not None
        return F.embedding(ids, self._half).float()


class Int8Matrix(Matrix):
    """About a quarter of the bytes: w is about scale * q, with q a whole number and one scale for each row of w.

    The inputs are rounded in the same way, with one scale for each token, so that what a token becomes does not depend
    on the tokens beside it. Products and sums are of whole numbers, and exact.

    Source of the rounding: Dettmers et al. 2022, arXiv:2208.07339, section 2.1 ("absmax", vector-wise).
    """

    dtype = torch.float32

    def __init__(self, weight: Tensor, *, looked_up: bool = False):
        weight = weight.detach().float()
        self.n_columns, self.n_rows = weight.shape[1], weight.shape[0]
        most = largest_int8_weight() if weight.device.type == "cpu" else None
        scales = _largest(weight) / (most or INT8)  # (N, 1)
        values = (weight / scales).round_().to(torch.int8)
        self._scales, self._packed = scales.squeeze(1), None
        if most:
            self._packed = Prepacked(_int8_product, packed_int8(values, self._scales), self.n_rows)
        elif weight.device.type == "cuda":  # whose kernel takes multiples of 8
            values = F.pad(values, (0, -weight.shape[1] % 8, 0, -weight.shape[0] % 8))
        self._values = values if looked_up or self._packed is None else None

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """See `Matrix`."""
        flat = x.reshape(-1, x.shape[-1]).float()
        largest = _largest(flat)  # (B, 1)
        if self._packed is None:
            y = self._int_mm(flat / largest) * self._scales
        else:
            y = self._packed.product(flat / largest)
        y = y.mul_(largest) if bias is None else torch.addcmul(bias, y, largest)
        return y.view(*x.shape[:-1], -1)

    def _int_mm(self, x: Tensor) -> Tensor:
        """x (B, C) of -1 to 1, to (B, N), without the rows' scales."""
        assert self._values is not None
        rounded = (x * INT8).round_().to(torch.int8)
        if x.device.type == "cuda":  # whose kernel takes 17 rows or more
            missing_rows = max(0, 17 - len(x))
            rounded = F.pad(rounded, (0, self._values.shape[1] - self.n_columns, 0, missing_rows))
        return torch._int_mm(rounded, self._values.t())[: len(x), : self.n_rows] / INT8

    def rows(self, ids: Tensor) -> Tensor:
        """See `Matrix`."""
        assert self._values is not None
        return self._values[ids][..., : self.n_columns] * self._scales[ids][..., None]


INT8 = 127  # the largest whole number of int8 that has a negative


def _fp16_product(x: Tensor, packed: Any) -> Tensor:
    return torch.ops.quantized.linear_dynamic_fp16.default(x, packed)


def _int8_product(x: Tensor, packed: Any) -> Tensor:
    """Inputs of -1 to 1 become whole numbers of -127 to 127, and the result is scaled by the rows' own scales."""
    return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default(x, 1 / INT8, 128, packed)


class Prepacked:
    """A matrix in a kernel's own form, which only the kernel can read.

    A compiler can't look into it. So compiled code has an operator that is told the matrix's number; it finds the
    matrix in a table. The number is a tensor, since a compiler would make one piece of code for each plain number.
    """

    _numbers = itertools.count()
    _table: ClassVar["weakref.WeakValueDictionary[int, Prepacked]"] = weakref.WeakValueDictionary()

    def __init__(self, kernel: Callable[[Tensor, Any], Tensor], packed: Any, n_rows: int):
        self._kernel, self._packed, self.n_rows = kernel, packed, n_rows
        number = next(Prepacked._numbers)
        self.number = torch.tensor(number)
        Prepacked._table[number] = self

    def product(self, x: Tensor) -> Tensor:
        """x (..., C) fp32 to (..., N) fp32."""
        if torch.compiler.is_compiling():
            return torch.ops.myna.packed_product(x, self.number, self.n_rows)
        return self._kernel(x, self._packed)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Prepacked":
        return self  # it never changes


def _packed_product(x: Tensor, number: Tensor, n_rows: int) -> Tensor:
    packed = Prepacked._table[int(number)]
    return packed._kernel(x, packed._packed)


# Not `torch.library.custom_op`, whose checks take as long as a small product.
_operators = torch.library.Library("myna", "FRAGMENT")
_operators.define("packed_product(Tensor x, Tensor number, SymInt n_rows) -> Tensor")
_operators.impl("packed_product", _packed_product, "CPU")


def _packed_shape(x: Tensor, number: Tensor, n_rows: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], n_rows)


torch.library.register_fake("myna::packed_product", _packed_shape, lib=_operators)


def _largest(x: Tensor) -> Tensor:
    """The largest magnitude in each row of (N, C), (N, 1). A row of zeros keeps its zeros."""
    return x.abs().amax(dim=1, keepdim=True).clamp_min_(1e-30)


@functools.cache
def has_fp16_kernel() -> bool:
    """Whether this build of torch multiplies fp32 with fp16 weights on this processor (fbgemm: x86 with AVX2)."""
    try:
        packed = torch.ops.quantized.linear_prepack_fp16(torch.ones(8, 8), None)
        found = torch.ops.quantized.linear_dynamic_fp16(torch.ones(1, 8), packed)
        return bool((found == 8).all())
    except (RuntimeError, NotImplementedError, AttributeError):
        return False


def packed_fp16(weight: Tensor) -> Any:
    """fp16 weights in the kernel's own form."""
    return torch.ops.quantized.linear_prepack_fp16(weight, None)


@functools.cache
def largest_int8_weight() -> int | None:
    """How large a weight may be for fbgemm's sums to be exact here; None where torch has no such kernel.

    Without the instructions of VNNI, pairs of products are added in 16 bits and cut off at 32,767. An input is at most
    255 there, so weights up to 63 are safe. The kernel is asked, since it chooses its instructions itself.
    """
    try:
        for most in (INT8, 63):
            weight = torch.full((64, 64), most, dtype=torch.int8)
            packed = packed_int8(weight, torch.ones(64))
            found = _int8_product(torch.ones(4, 64), packed)
            if bool((found == 64 * most).all()):
                return most
    except (RuntimeError, NotImplementedError, AttributeError):
        pass
    return None


def packed_int8(values: Tensor, scales: Tensor) -> Any:
    """Whole numbers (N, C) and their scales (N,), in fbgemm's own form."""
    engine = torch.backends.quantized.engine
    with warnings.catch_warnings():
        # torch 2.13 warns that its quantized tensors will go one day. The kernel takes its weights as nothing else.
        # Where they are gone, `largest_int8_weight` finds no kernel, and `_int_mm` multiplies.
        warnings.simplefilter("ignore", UserWarning)
        try:
            torch.backends.quantized.engine = "fbgemm"
            zeros = torch.zeros(len(scales), dtype=torch.int64)
            quantized = torch._make_per_channel_quantized_tensor(values, scales.double(), zeros, 0)
            return torch.ops.quantized.linear_prepack(quantized, None)
        finally:
            torch.backends.quantized.engine = engine


def times(x: Tensor, weight: Any) -> Tensor:
    """x (..., C) times a weight (N, C), stored or a tensor: (..., N)."""
    return weight.product(x) if isinstance(weight, Matrix) else F.linear(x, weight)
