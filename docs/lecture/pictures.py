"""The pictures of these chapters that come from a tokenizer or a trained model.

    python docs/lecture/pictures.py merges PNG [TEXT]        the merges of one pre-token as a tree (GPT-2's)
    python docs/lecture/pictures.py attention MODEL PNG [TEXT]   the causal mask, and what two heads take from where
    python docs/lecture/pictures.py positions MODEL PNG      the position embeddings before and after training

MODEL is what every command of Myna takes, such as runs/pydoc, which scripts/demo makes. The pictures are transparent,
in colours that can be told apart on white and on black.
"""

import sys
from collections.abc import Callable

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

from myna import Tokenizer
from myna.evaluate.inspect.prompt import habits, trace
from myna.evaluate.inspect.weights import positions_of, roughness
from myna.model.open import open_model
from myna.text.explain import why

BLUE, ORANGE, GREY = "#56b4e9", "#e69f00", "#808080"
# White to blue would vanish on a white page; this map begins at a grey that shows on white and on black.
MAP = matplotlib.colors.LinearSegmentedColormap.from_list("weight", ["#80808022", BLUE, "#0072b2"])


def legible(token: bytes) -> str:
    return token.decode("utf-8", errors="replace").replace(" ", "·").replace("\n", "⏎")


def merges(text: str = " tokenization") -> Figure:
    """Leaves are bytes, and each knot is a merge with its rank: the lowest rank of all merges first."""
    tokenizer = Tokenizer.gpt2()
    steps = why(tokenizer, text)
    # (token, x, y) of the tokens as they stand; a merge is drawn above the higher of its two parts.
    knots = [(token, float(at), 0) for at, token in enumerate(steps[0].tokens)]
    figure, axes = pyplot.subplots(figsize=(9, 4.6), dpi=120)
    for token, x, y in knots:
        axes.text(x, y, legible(token), ha="center", va="center", color=GREY, fontsize=13)
    for number, step in enumerate(steps[:-1], start=1):
        at = step.chosen
        assert at is not None
        left, right = knots[at : at + 2]
        token, x, y = left[0] + right[0], (left[1] + right[1]) / 2, max(left[2], right[2]) + 1
        for _, from_x, from_y in (left, right):
            axes.plot(
                [from_x, x], [from_y + (0.48 if from_y else 0.28), y - 0.25], color=ORANGE, linewidth=1.5
            )
        axes.text(x, y, legible(token), ha="center", va="center", color=BLUE, fontsize=13, weight="bold")
        axes.text(
            x,
            y + 0.33,
            f"{number}: rank {step.ranks[at]:,}",
            ha="center",
            va="center",
            color=GREY,
            fontsize=8,
        )
        knots[at : at + 2] = [(token, x, y)]
        print(f"{number:>2}  rank {step.ranks[at]:>6,}  {legible(left[0])} + {legible(right[0])}")
    axes.set_xlim(-0.7, len(steps[0].tokens) - 0.3)
    axes.set_ylim(-0.6, max(y for _, _, y in knots) + 0.7)
    axes.set_axis_off()
    return figure


def attention(model: str, text: str = "The quick brown fox jumps over the lazy dog, and the dog") -> Figure:
    """The mask, the head that looks most at the token before, and the one that looks most at the first token."""
    opened = open_model(model)
    tokenizer = opened.tokenizer_or(None)
    ids = tokenizer.encode(text)
    names = [legible(tokenizer.token_bytes(i)) for i in ids]
    seen = trace(opened.model, ids)
    heads = {
        (layer, one.head): one for layer in range(len(seen.heads)) for one in habits(seen.attention(layer))
    }
    before = max(heads, key=lambda place: heads[place].previous)
    rest = [place for place in heads if place != before]
    first = max(rest, key=lambda place: heads[place].first)
    maps = {"the causal mask: blue may be seen": np.tril(np.ones((len(ids), len(ids))))}
    for (layer, head), what in ((before, "the token before"), (first, "the first token")):
        maps[f"layer {layer}, head {head}: looks most at {what}"] = seen.attention(layer)[head].numpy()
        one = heads[layer, head]
        print(
            f"layer {layer}, head {head}: before {one.previous:.2f}, first {one.first:.2f}, itself {one.itself:.2f}"
        )
    figure, panels = pyplot.subplots(1, len(maps), figsize=(13.5, 4.9), dpi=120)
    for axes, (title, weights) in zip(panels, maps.items(), strict=True):
        axes.imshow(weights, cmap=MAP, vmin=0, vmax=1)
        axes.set_title(title, color=GREY, fontsize=9)
        for axis, labels in ((axes.xaxis, names), (axes.yaxis, names)):
            axis.set_ticks(range(len(ids)), labels, fontsize=7)
        axes.tick_params(colors=GREY, length=0)
        axes.tick_params(axis="x", rotation=90)
        axes.spines[:].set_visible(False)
    figure.tight_layout()
    return figure


def positions(model: str) -> Figure:
    """Three channels of the position embeddings: noise at first, curves after training."""
    network = open_model(model).model
    torch.manual_seed(0)
    fresh = type(network)(network.config)
    found = {"before training": positions_of(fresh), "after training": positions_of(network)}
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.6), dpi=120, sharey=True)
    after = found["after training"]
    if after is None:
        raise SystemExit(f"{model} has no position embeddings to draw")
    channels = np.argsort(-after.numpy().var(axis=0))[:3]
    for axes, (title, values) in zip(panels, found.items(), strict=True):
        assert values is not None
        matrix = values.numpy()
        for channel, colour in zip(channels, (BLUE, ORANGE, "#009e73"), strict=True):
            axes.plot(matrix[:, channel], color=colour, linewidth=1.5, label=f"channel {channel}")
        axes.set_title(title, color=GREY, fontsize=12)
        axes.set_xlabel("position", color=GREY)
        axes.tick_params(colors=GREY)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
        print(f"{title}: roughness {np.median(roughness(matrix)):.2f}")
    figure.legend(
        *panels[1].get_legend_handles_labels(), loc="upper center", ncol=3, frameon=False, labelcolor=GREY
    )
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    return figure


KINDS: dict[str, tuple[Callable[..., Figure], int]] = {
    "merges": (merges, 0),
    "attention": (attention, 1),
    "positions": (positions, 1),
}


def main(kind: str, *rest: str) -> None:
    matplotlib.use("agg")
    draw, before_png = KINDS[kind]
    figure = draw(*rest[:before_png], *rest[before_png + 1 :])
    figure.savefig(rest[before_png], transparent=True, bbox_inches="tight")
    pyplot.close(figure)


if __name__ == "__main__":
    main(*sys.argv[1:])
