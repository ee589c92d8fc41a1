"""Training on more weights than a device holds: FSDP2 spreads weights, gradients and moments over the ranks.

Each rank keeps a part of every tensor, and has the whole of one block at a time while it computes it. Elsewhere in
training a sharded model looks like any other: what needs whole tensors asks here.
"""

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from myna.model.gpt2 import GPT
from myna.train.ranks import Ranks


def shard_model(model: GPT, ranks: Ranks) -> None:
    """Spreads a model's weights over all ranks, in place. Its parameters are other objects from then on.

    Weights are gathered in fp32, as they are kept: the arithmetic is that of DDP.
    """
    if ranks.world_size == 1:
        return
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    for block in model.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "hidden")  # training enters the network there, not by forward()


def is_sharded(model: GPT) -> bool:
    """Whether `shard_model` did something to it."""
    return isinstance(model, FSDPModule)


def add_up_gradients(model: GPT, now: bool) -> None:
    """Whether a sharded model's next backward pass adds its gradients up over the ranks; nothing for another."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor of which each rank may hold a part. Where it is so, every rank must ask together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, part: Tensor) -> Tensor:
    """A whole tensor, present on every rank, cut as `part` is; on its device."""
    tensor = tensor.to(part.device)
    if not isinstance(part, DTensor):
        return tensor
    return distribute_tensor(tensor, part.device_mesh, part.placements, src_data_rank=None)


def unsharded(model: GPT) -> GPT:
    """The model itself, or of a sharded one a whole copy, for what computes with it outside a training step.

    Of a sharded model every rank must ask together. The copy lives as long as the caller holds it.
    """
    if not is_sharded(model):
        return model
    with torch.device("meta"):
        copy = GPT(model.config)
    copy.load_state_dict({name: whole(p.detach()) for name, p in model.named_parameters()}, assign=True)
    return copy.train(model.training)
