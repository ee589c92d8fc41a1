"""Training on more weights than a device holds: FSDP2 spreads weights, gradients and moments over the ranks.

Each rank keeps a part of every tensor, and has the whole of one block at a time while it computes it. Elsewhere in
training a sharded network looks like any other: what needs whole tensors asks here.
"""

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from myna.model.network import Network
from myna.train.machines.ranks import Ranks


def shard_network(network: Network, ranks: Ranks) -> None:
    """Spreads a network's weights over all ranks, in place. Its parameters are other objects from then on.

    Weights are gathered in fp32, as they are kept: the arithmetic is that of DDP.
    """
    if ranks.world_size == 1:
        return
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    module = cast(nn.Module, network)
    for block in network.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    register_fsdp_forward_method(module, "hidden")  # training enters the network there, not by forward()


def is_sharded(network: Network) -> bool:
    """Whether `shard_network` did something to it."""
    return isinstance(network, FSDPModule)


def add_up_gradients(network: Network, now: bool) -> None:
    """Whether a sharded network's next backward pass adds its gradients up over the ranks; nothing for another."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(now)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor of which each rank may hold a part. Where it is so, every rank must ask together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor; writing to it writes to the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, part: Tensor) -> Tensor:
    """A whole tensor, present on every rank, cut as `part` is; on its device."""
    tensor = tensor.to(part.device)
    if not isinstance(part, DTensor):
        return tensor
    return distribute_tensor(tensor, part.device_mesh, part.placements, src_data_rank=None)


def unsharded(network: Network, without_memory: Callable[[], Network]) -> Network:
    """The network itself, or of a sharded one a whole copy, for what computes with it outside a training step.

    Of a sharded network every rank must ask together. The copy lives as long as the caller holds it.

    Args:
        without_memory: makes a network of the same shape without weights.
    """
    if not is_sharded(network):
        return network
    copy = without_memory()
    copy.load_state_dict({name: whole(p.detach()) for name, p in network.named_parameters()}, assign=True)
    return copy.train(network.training)
