"""The learning rate over a run: GPT-3's own schedule, and the lecture's, which shortens it to 10 billion tokens.

    python docs/lecture/schedule.py schedule.png

The script prints the rate at the steps where something happens, and draws both runs.
"""

import sys

import matplotlib
from matplotlib import pyplot

from myna.recipes import named
from myna.train.schedule import rate_of

RUNS = {"gpt2-124m": "#e69f00", "gpt3-124m": "#56b4e9"}  # legible on white and on black
GREY = "#808080"


def main(picture: str) -> None:
    matplotlib.use("agg")
    figure, axes = pyplot.subplots(1, len(RUNS), figsize=(10, 3.6), dpi=120, sharey=True)
    print(f"{'recipe':<11}{'step':>8}  {'billion tokens':>14}  {'learning rate':>13}")
    for axis, (name, colour) in zip(axes, RUNS.items(), strict=True):
        recipe = named(name)
        rate = rate_of(recipe)
        end = recipe.decay_steps or recipe.steps
        middle = (recipe.warmup_steps + end) // 2
        for step in sorted({1, recipe.warmup_steps, middle, end, recipe.steps}):
            tokens = step * recipe.batch_tokens / 1e9
            print(f"{name:<11}{step:>8,}  {tokens:>14.3f}  {rate(step - 1):>13.2e}")

        steps = [*range(1, recipe.warmup_steps), *range(recipe.warmup_steps, recipe.steps, 50), recipe.steps]
        tokens_seen = [step * recipe.batch_tokens / 1e9 for step in steps]
        axis.plot(tokens_seen, [rate(step - 1) * 1e4 for step in steps], color=colour, linewidth=2.5)
        axis.axhline(
            recipe.learning_rate * recipe.final_learning_rate_fraction * 1e4,
            color=GREY,
            linestyle=":",
            linewidth=1.5,
        )
        axis.set_title(name, color=GREY, fontsize=13)
        axis.set_xlabel("tokens, billions", color=GREY)
        axis.set_xlim(0, round(tokens_seen[-1], 1))
        axis.set_ylim(0, recipe.learning_rate * 1e4 * 1.1)
        axis.tick_params(colors=GREY)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(GREY)
    axes[0].set_ylabel("learning rate, 1e-4", color=GREY)
    axes[0].annotate(
        "warmup: 0.375 billion",
        (0.375, 6),
        (2.2, 6.2),
        color=GREY,
        arrowprops={"arrowstyle": "->", "color": GREY},
    )
    axes[1].annotate(
        "from here on a tenth",
        (260, 0.6),
        (170, 2.2),
        color=GREY,
        arrowprops={"arrowstyle": "->", "color": GREY},
    )
    figure.tight_layout()
    figure.savefig(picture, transparent=True)
    pyplot.close(figure)


if __name__ == "__main__":
    main(*sys.argv[1:])
