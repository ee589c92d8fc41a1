"""Widths that a GPU's matrix units do not like, said before a run begins.

A GPU computes a matrix product in tiles, 128 columns wide in the common kernels. Its tensor cores take the numbers of
a row in runs of 64. Where a width is no multiple, the last tile is computed in full and partly thrown away. GPT-2 1558M
has such a shape: 25 heads of 64 make a width of 1600, which is twelve and a half tiles. The vocabulary is always padded
to a multiple of 128 (model/config.py), so nothing is said of it.

A CPU's tiles are 16 to 64 wide, so a run on one gets no note: products of widths 1536, 1600 and 1664 ran at the same
speed (docs/log.md).

Source: NVIDIA, Matrix Multiplication Background User's Guide, "Tensor Core requirements" and "Tile quantization".
"""

import torch

from myna.device import Precision
from myna.model.config import NetworkConfig

TILE = 128  # columns
RUN = 64  # numbers of 16 bits: the 128 bytes that tensor cores take best
LEAST_WIDTH = 512  # below, a kernel's start takes longer than its tiles


def tile_note(config: NetworkConfig, device: torch.device, precision: Precision) -> str | None:
    """A sentence on a shape that wastes tiles on that device, with what to do; None where there is nothing to say."""
    if device.type != "cuda" or precision.name == "fp32" or config.n_embd < LEAST_WIDTH:
        return None
    width, heads, head = config.n_embd, config.n_head, config.head_width
    if width % TILE:
        waste = 1 - width / (-(-width // TILE) * TILE)
        what = (
            f"a width of {width} ({heads} heads of {head}) is no multiple of {TILE}, so about {waste:.0%} of its "
            "matrix products are thrown away"
        )
    elif head % RUN:
        what = f"heads are {head} wide, which is no multiple of {RUN}, so attention fills its tiles badly"
    else:
        return None
    better = " or ".join(f"--n-embd {w} --n-head {h}" for w, h in better_shapes(width, head))
    return f"{what}; for a shape of your own give {better}; keep it to reproduce a published model"


def better_shapes(width: int, head: int) -> list[tuple[int, int]]:
    """The nearest widths and numbers of heads that fill all tiles.

    >>> better_shapes(1600, 64)
    [(1536, 24), (1664, 26)]
    >>> better_shapes(1536, 96)
    [(1536, 12), (1536, 24)]
    """
    widths = sorted({width // TILE * TILE, -(-width // TILE) * TILE} - {0})
    heads = sorted({head // RUN * RUN, -(-head // RUN) * RUN} - {0}, reverse=True)
    shapes = [(w, w // h) for w in widths for h in heads if w % h == 0]
    return shapes or [(w, w // RUN) for w in widths]
