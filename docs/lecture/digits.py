"""A GPT that writes digits: pictures of 8 x 8 pixels as raw ids, without any text.

    python docs/lecture/digits.py make FOLDER             train.bin and val.bin, which `myna train --data` reads
    python docs/lecture/digits.py read MODEL              lets the model tell which digit a picture shows
    python docs/lecture/digits.py draw MODEL PNG          lets the model draw, and shows its digits beside real ones

The ids: 0 to 16 are grey values, 17 to 26 the digits 0 to 9, and 256 begins a picture.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from myna import generate
from myna.model.network import Network
from myna.model.open import open_model

GREY_VALUES, BEGIN, PIXELS = 17, 256, 64
N_TRAIN = 1500


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """All pictures in a fixed order, (1797, 64) of 0 to 16, and what they show, (1797,) of 0 to 9."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return data.data[order].astype(np.uint16), data.target[order].astype(np.uint16)


def as_ids(pixels: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """(N, 66) ids: the beginning, the digit, and its pixels line by line."""
    begin = np.full((len(digits), 1), BEGIN, np.uint16)
    return np.concatenate([begin, GREY_VALUES + digits[:, None], pixels], axis=1).astype(np.uint16)


def make(folder: Path) -> None:
    """Writes the ids as two plain files, as nanoGPT does."""
    ids = as_ids(*pictures())
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", ids[:N_TRAIN]), ("val", ids[N_TRAIN:])):
        part.tofile(folder / f"{name}.bin")
        print(f"{folder}/{name}.bin: {len(part):,} pictures of {part.shape[1]} ids")
    print("the first:", *ids[0][:14], "...")


@torch.no_grad()
def nats_of_pixels(model: Network, ids: np.ndarray) -> np.ndarray:
    """The summed loss of each row's pixels, (N,) float, given the digit before them."""
    rows = torch.from_numpy(ids.astype(np.int64))
    log_p = torch.log_softmax(model(rows[:, :-1]).float(), dim=-1)
    of_targets = log_p.gather(-1, rows[:, 1:, None])[..., 0]
    return -of_targets[:, 1:].sum(dim=1).numpy()  # the first target is the digit itself


def read(model: Network) -> None:
    """Which digit makes the pixels likeliest? The answer of the model for pictures that it never saw."""
    pixels, digits = (part[N_TRAIN:] for part in pictures())
    nats = np.stack([nats_of_pixels(model, as_ids(pixels, np.full_like(digits, d))) for d in range(10)])
    right = int((nats.argmin(axis=0) == digits).sum())
    print(f"the model reads {right} of {len(digits)} digits right")


def draw(model: Network, out: Path, each: int = 8) -> None:
    """Ten rows: digits that the model drew, and on the right real ones."""
    from matplotlib import pyplot

    pixels, digits = (part[:N_TRAIN] for part in pictures())
    asked = np.repeat(np.arange(10), each)
    prompts = torch.tensor([[BEGIN, GREY_VALUES + int(digit)] for digit in asked])
    drawn = np.array(generate(model, prompts, max_tokens=PIXELS, temperature=1.0, top_k=GREY_VALUES, seed=0))
    judge = KNeighborsClassifier(3).fit(pixels, digits)
    agree = int((judge.predict(drawn) == asked).sum())
    print(f"ids that are not a pixel: {int((drawn >= GREY_VALUES).sum())} of {drawn.size}")
    print(f"a classifier that knows real digits sees the digit that was asked for in {agree} of {len(asked)}")
    rows = []
    for digit in range(10):
        real = pixels[digits == digit][:3]
        gap = np.full((1, PIXELS), np.nan)
        row = np.concatenate([drawn[asked == digit].astype(float), gap, real])
        rows.append(np.concatenate([np.pad(p.reshape(8, 8), 1, constant_values=np.nan) for p in row], axis=1))
    picture = np.ma.masked_invalid(np.concatenate(rows))
    figure, axes = pyplot.subplots(figsize=(7.2, 6.4))
    axes.imshow(picture, cmap="gray_r", vmin=0, vmax=GREY_VALUES - 1)
    axes.set_axis_off()
    axes.set_title("drawn by the model" + " " * 42 + "real", fontsize=11)
    figure.savefig(out, dpi=110, bbox_inches="tight")
    print(out)


def main() -> None:
    action, *rest = sys.argv[1:]
    if action == "make":
        make(Path(rest[0]))
        return
    model = open_model(rest[0]).model
    if action == "read":
        read(model)
    else:
        draw(model, Path(rest[1]))


if __name__ == "__main__":
    main()
