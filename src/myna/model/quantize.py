"""Weights as they are stored for generation and scoring: in bf16, in fp16, or in int8 with a scale for each row.

    fp32  as trained; `--precision` may multiply in less
    bf16  products in bf16, added up in fp32; the residual stream, norms and position embeddings stay fp32
    fp16  weights in fp16, everything else in fp32 (on a GPU the products' inputs are fp16 too)
    int8  a byte a weight; inputs are rounded too. `myna eval --weights int8` says what it costs in loss

Token embeddings and head are stored like the rest, tied or not. matrix.py has the arithmetic.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from myna.device import BF16_INSTRUCTIONS, cpu_flags
from myna.errors import DeviceError, ModelError
from myna.model.matrix import Bf16Matrix, Fp16Matrix, Int8Matrix, Matrix, has_fp16_kernel
from myna.model.network import Network
from myna.settings import WeightsName


class StoredLinear(nn.Module):
    """`nn.Linear` on a stored matrix."""

    def __init__(self, linear: nn.Linear, matrix: Matrix):
        super().__init__()
        self.weight = matrix
        # Neither parameter nor buffer: nothing here is trained or saved, and a plain attribute is found faster.
        self.bias = None if linear.bias is None else linear.bias.detach().to(matrix.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.product(x, self.bias)


class StoredEmbedding(nn.Module):
    """`nn.Embedding` on a stored matrix."""

    def __init__(self, matrix: Matrix):
        super().__init__()
        self.weight = matrix

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight.rows(ids)


MATRICES: dict[str, type[Matrix]] = {"bf16": Bf16Matrix, "fp16": Fp16Matrix, "int8": Int8Matrix}


def store_weights(network: Network, weights: WeightsName) -> None:
    """Stores the products' weights of a network in fewer bytes, in place; "fp32" leaves them.

    The network can then compute hidden states, logits and losses without gradients. It can no longer be trained or
    saved.

    Args:
        weights: not "auto"; see `resolve_weights`.
    Raises:
        ModelError: weights too large for fp16, or not finite.
    """
    if weights == "fp32":
        return
    require_finite(network)
    kind = MATRICES[weights]
    network.stored_on = network.device
    looked_up = {id(p) for name, p in network.named_parameters() if name in network.vocabulary_rows}
    made: dict[Tensor, Matrix] = {}  # a tied matrix is stored once

    def stored(weight: Tensor) -> Matrix:
        if weight not in made:
            made[weight] = kind(weight, looked_up=id(weight) in looked_up)
        return made[weight]

    with torch.no_grad():
        for module, name, child in list(_modules_to_store(network)):
            if isinstance(child, nn.Linear):
                setattr(module, name, StoredLinear(child, stored(child.weight)))
            else:
                setattr(module, name, StoredEmbedding(stored(child.weight)))


def _modules_to_store(network: Network) -> Iterator[tuple[nn.Module, str, nn.Linear | nn.Embedding]]:
    """The modules with a matrix to store, each with the module that holds it, and its name there."""
    for name, module in network.named_modules():
        for child_name, child in module.named_children():
            full = f"{name}.{child_name}.weight".lstrip(".")
            if isinstance(child, nn.Linear) or (
                isinstance(child, nn.Embedding) and full in network.vocabulary_rows
            ):
                yield module, child_name, child


def largest_weight(network: Network) -> float:
    """The size of the largest weight that `store_weights` would store; a NaN where one is a NaN."""
    with torch.no_grad():
        ends = [torch.stack(child.weight.aminmax()).abs().max() for _, _, child in _modules_to_store(network)]
        return float(torch.stack(ends).max()) if ends else 0.0


def require_finite(network: Network) -> None:
    """Refuses weights that no kind of number can hold.

    Raises:
        ModelError: a weight is a NaN or an infinity; names its tensor.
    """
    for name, weight in network.named_parameters():
        if not bool(torch.stack(weight.detach().aminmax()).isfinite().all()):
            raise ModelError(
                f"the model's weights are not finite: {name} holds a NaN or an infinity; the file is damaged, or "
                "training diverged; use an earlier checkpoint or another model"
            )


def holds(weights: WeightsName, largest: float) -> bool:
    """Whether a weight of that size is still finite when it is stored so.

    >>> holds("fp16", 65504.0), holds("fp16", 1e5), holds("bf16", 1e5)
    (True, False, True)
    """
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(weights, torch.float32)
    return bool(torch.tensor(largest).to(dtype).isfinite())


def resolve_weights(
    name: WeightsName, device: torch.device, *, generates: bool = True, largest: float = 0.0
) -> tuple[WeightsName, str]:
    """Settles `auto`, and says why, for people.

    bf16 where the device multiplies in it. To write texts on x86 processors without AMX it is fp16: reading the weights
    takes the time, and the kernel for fp16 reads them faster, also where there are other instructions for bf16. For
    scores, whose products are large, it is slower.

    Args:
        generates: whether texts are written, id by id; else many ids are scored at once.
        largest: see `largest_weight`. `auto` takes no kind that can't hold it.
    Raises:
        DeviceError: int8 on a device without a kernel for it.
    """
    if device.type == "mps" and name == "int8":
        raise DeviceError("--weights int8 has no kernel on mps; use fp32 or bf16")
    if name != "auto":
        return name, "asked for"
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) < (8, 0):
            return "fp32", "the GPU has no bf16"
        if not holds("bf16", largest):
            return "fp32", "a weight is too large for bf16"
        return "bf16", "the GPU multiplies in bf16"
    fast = sorted(cpu_flags() & BF16_INSTRUCTIONS) if device.type == "cpu" else []
    prefers_fp16 = device.type == "cpu" and generates and "amx_bf16" not in fast and has_fp16_kernel()
    if prefers_fp16 and holds("fp16", largest):
        return "fp16", "half the bytes to read, by the fastest kernel of this processor"
    if fast and holds("bf16", largest):
        return "bf16", f"the processor has {' and '.join(fast)}"
    if fast or prefers_fp16:
        return "fp32", f"a weight is too large for {'bf16' if fast else 'fp16'}"
    return "fp32", f"no instructions for bf16 on this {'processor' if device.type == 'cpu' else 'device'}"
