"""What the GPUs of a run send each other in a step, and how much of it they wait for. All of it is computed."""

from dataclasses import asdict, dataclass
from typing import Any

from myna.plan.assumptions import Assumptions
from myna.plan.memory import GB, Setting, Shape


@dataclass(frozen=True)
class Traffic:
    """A step's communication over one kind of link.

    Attributes:
        link: nvlink or pcie.
        gb_per_s: what a ring reaches: of the link, or of the machines' network where that is slower.
        gb: that each GPU sends.
        seconds: that sending takes.
        waited: seconds of them in which nothing is computed. FSDP gathers the next block while one computes. Under DDP
            the network is compiled by the block, and a block's gradients are sent while those below it are computed.
    """

    link: str
    gb_per_s: float
    gb: float
    seconds: float
    waited: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def links(assumptions: Assumptions) -> list[str]:
    """The kinds of links that a GPU has, the fastest first."""
    return [name for name in ("nvlink", "pcie") if assumptions.get(f"{name}_gb_per_s") is not None]


def traffic(
    shape: Shape, setting: Setting, assumptions: Assumptions, compute_seconds: float, link: str
) -> Traffic:
    """A step's communication.

    DDP adds up all gradients in fp32, once a step: in a ring each GPU sends 2 (n - 1) / n of their bytes. FSDP gathers
    the weights in fp32 for each micro-batch, the blocks' twice, and scatters the gradients once a step: each time a GPU
    sends (n - 1) / n of the bytes.

    DDP can hide the blocks' gradients behind the last micro-batch's backward pass, two thirds of its arithmetic. The
    rest is exposed: above all the tied embedding's gradient, which is complete only at the end of that pass.

    A machine's GPUs form as many rings as its network has cards, and a ring leaves the machine once. So the whole
    network of a machine carries what one GPU sends, and the slower of the two is the speed.

    Args:
        compute_seconds: of a step's arithmetic on one GPU.
    """
    n = setting.gpus
    speed = assumptions[f"{link}_gb_per_s"]
    if n > assumptions["gpus_per_machine"]:
        speed = min(speed, assumptions["network_gbit_per_s"] / 8)
    speed *= assumptions["link_efficiency"]
    blocks = shape.weight_bytes - shape.root_bytes
    around = (n - 1) / n
    if setting.sharded:
        gathers = setting.accumulate
        last = around * shape.root_bytes * (gathers + 1)
        rest = around * blocks * (2 * gathers + 1)
        meanwhile = compute_seconds
    else:
        last, rest = 2 * around * shape.root_bytes, 2 * around * blocks
        meanwhile = compute_seconds / setting.accumulate * 2 / 3
    seconds = (last + rest) / GB / speed
    waited = last / GB / speed + max(0.0, rest / GB / speed - meanwhile)
    return Traffic(link, speed, (last + rest) / GB, seconds, waited)
