"""How GPT-2 and GPT-4 cut the integers 0 to 9,999 into tokens: the counts, and a picture of two grids.

    python docs/lecture/integers.py integers.png [cl100k_base.tiktoken]

GPT-4's grid needs no download. Its pattern cuts digits into groups of at most three, from the left, and every group of
one to three digits is a token of its vocabulary. With OpenAI's rank file as the second argument, the script uses the
whole tokenizer instead. The picture is the same.
"""

import sys
from collections import Counter
from collections.abc import Callable

import matplotlib
from matplotlib import pyplot
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from myna import Tokenizer
from myna.text import patterns

Cut = tuple[int, ...]  # digits in each token

# Colours that can be told apart on white and on black, by colour-blind readers too (after Okabe and Ito).
COLOURS: dict[Cut, str] = {
    (1,): "#009e73",
    (2,): "#009e73",
    (3,): "#009e73",
    (4,): "#009e73",
    (3, 1): "#56b4e9",
    (2, 2): "#e69f00",
    (1, 3): "#d55e00",
    (1, 2): "#cc79a7",
    (2, 1): "#0072b2",
    (1, 2, 1): "#f0e442",
}
GREY = "#808080"  # legible on white and on black
SIDE = 100


def name(cut: Cut) -> str:
    return "one token" if len(cut) == 1 else " + ".join(map(str, cut))


def cuts(split: Callable[[str], list[str]]) -> list[Cut]:
    """How many digits each token of a number has, for each number."""
    return [tuple(map(len, split(str(number)))) for number in range(SIDE * SIDE)]


def main(picture: str, gpt4_file: str | None = None) -> None:
    gpt2 = Tokenizer.gpt2()
    gpt4 = Tokenizer.load(gpt4_file) if gpt4_file else None
    tables = {
        "GPT-2": cuts(lambda text: [gpt2.decode([i]) for i in gpt2.encode(text)]),
        "GPT-4": cuts(
            lambda text: [gpt4.decode([i]) for i in gpt4.encode(text)] if gpt4 else patterns.GPT4.pieces(text)
        ),
    }
    names = list(dict.fromkeys(map(name, COLOURS)))
    colours = {name(cut): colour for cut, colour in COLOURS.items()}

    print(f"{'digits':<12}" + "".join(f"{title:>8}" for title in tables))
    counts = {title: Counter(map(name, table)) for title, table in tables.items()}
    for each in names:
        print(f"{each:<12}" + "".join(f"{count[each]:>8,}" for count in counts.values()))

    matplotlib.use("agg")
    figure, axes = pyplot.subplots(1, len(tables), figsize=(10, 5.6), dpi=120)
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        cells = [
            [names.index(name(cut)) for cut in table[row : row + SIDE]] for row in range(0, SIDE * SIDE, SIDE)
        ]
        axis.imshow(
            cells,
            cmap=ListedColormap([colours[each] for each in names]),
            vmin=0,
            vmax=len(names) - 1,
            interpolation="nearest",
        )
        axis.set_title(title, color=GREY, fontsize=14)
        axis.set_xlabel("the last two digits", color=GREY)
        axis.set_ylabel("the digits before them", color=GREY)
        axis.tick_params(colors=GREY)
        for spine in axis.spines.values():
            spine.set_color(GREY)
    figure.legend(
        handles=[Patch(color=colours[each], label=each) for each in names],
        loc="lower center",
        ncols=len(names),
        frameon=False,
        labelcolor=GREY,
    )
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(picture, transparent=True)
    pyplot.close(figure)


if __name__ == "__main__":
    main(*sys.argv[1:])
