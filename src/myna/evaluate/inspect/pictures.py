"""The pictures of `myna inspect`, each from arrays to a PNG. Signed numbers are blue below 0 and orange above."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator

from myna.evaluate.inspect.prompt import LensRow
from myna.evaluate.inspect.tokens import Ranking
from myna.evaluate.inspect.weights import Smoothness, TensorRow
from myna.evaluate.picture import COLOURS, FAINT, INK, MUTED, png_of
from myna.text.render import legible

SIGNED = LinearSegmentedColormap.from_list("signed", [COLOURS[0], "#ffffff", COLOURS[1]])
SHARE = LinearSegmentedColormap.from_list("share", ["#ffffff", COLOURS[0]])
CLIP_PERCENTILE = 99.5  # of the absolute values; larger ones get the last colour

MOST_LABELS = 32  # tokens named along an axis
MOST_LETTERS = 10  # of a token's label
CORNER = 256  # rows and columns of a matrix that are drawn, so that each number is a dot
MOST_MATRICES = 8
MOST_ROWS, MOST_COLUMNS = 12, 16  # of small attention maps
MOST_LENS_POSITIONS = 9
MOST_BARS = 16
NAMED_POINTS, ROOM_OF_NAME = 6, 0.14  # of all ids, that a name needs along the axis
BAND = "10th to 90th percentile of the channels"


def label(data: bytes | None, letters: int = MOST_LETTERS) -> str:
    """A token's text with signs that the font has; others as numbers.

    >>> label(b" caf\\xc3\\xa9"), label(b"abcdefghijklmn"), label("\u4f60".encode())
    ('·café', 'abcdefghi…', 'U+4F60')
    """
    text = "no token" if data is None else legible(data)
    known = "".join(c if _has(c) else f"U+{ord(c):04X}" for c in text)
    return known if len(known) <= letters else known[: letters - 1] + "…"


@functools.cache
def _font() -> str:
    return findfont(FontProperties())


@functools.cache
def _has(character: str) -> bool:
    return bool(get_font(_font()).get_char_index(ord(character)))


def _figure(width: float, height: float, title: str, subtitle: str) -> Figure:
    """A figure of so many inches, with its headline."""
    figure = Figure(figsize=(width, height), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    for y, text, size, weight, colour in (
        (0.32, title, 15, "bold", INK),
        (0.6, subtitle, 9.5, "normal", MUTED),
    ):
        place = (0.35 / width, 1 - y / height)
        figure.text(
            *place, text, fontsize=size, fontweight=weight, color=colour, va="center", parse_math=False
        )
    return figure


def _inches(
    figure: Figure, left: float, right: float, bottom: float, top: float = 1.2, **spaces: float
) -> None:
    """The margins, in inches. A legend above the panel fits a top of 1.2."""
    width, height = figure.get_size_inches()
    edges = {
        "left": left / width,
        "right": 1 - right / width,
        "bottom": bottom / height,
        "top": 1 - top / height,
    }
    figure.subplots_adjust(**edges, **spaces)


def _plain(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    axes.set_title(title, loc="left", fontsize=10, color=INK, pad=6, parse_math=False)
    axes.set_xlabel(x, fontsize=9, color=MUTED)
    axes.set_ylabel(y, fontsize=9, color=MUTED)
    axes.tick_params(length=0, labelsize=8, labelcolor=MUTED)
    for side in axes.spines.values():
        side.set_visible(False)


def _curves(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    _plain(axes, title, x, y)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines["bottom"].set_visible(True)
    axes.spines["bottom"].set_color("#b9bec5")


def _signed(axes: Axes, matrix: np.ndarray, **how: Any) -> AxesImage:
    limit = float(np.percentile(np.abs(matrix), CLIP_PERCENTILE)) or 1.0
    return axes.imshow(matrix, cmap=SIGNED, vmin=-limit, vmax=limit, **how)


def _scale(figure: Figure, image: AxesImage, axes: Axes) -> None:
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02)
    bar.ax.tick_params(length=0, labelsize=7.5, labelcolor=MUTED)
    bar.outline.set_visible(False)


def matrix(values: np.ndarray, title: str, subtitle: str, x: str, y: str) -> bytes:
    """Signed numbers (rows, columns) as colours."""
    figure = _figure(7, 5.2, title, subtitle)
    axes = figure.subplots()
    _inches(figure, 0.75, 0.35, 0.6, 0.85)
    _plain(axes, "", x, y)
    _scale(figure, _signed(axes, values, aspect="auto", interpolation="nearest"), axes)
    return png_of(figure)


def curves(series: Sequence[tuple[str, np.ndarray]], title: str, subtitle: str, x: str) -> bytes:
    """Named curves over 0, 1, 2, and so on."""
    figure = _figure(7, 4.2, title, subtitle)
    axes = figure.subplots()
    _inches(figure, 0.75, 0.35, 0.6)
    _curves(axes, "", x)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    for number, (name, values) in enumerate(series):
        axes.plot(values, color=COLOURS[number % len(COLOURS)], linewidth=1.2, label=name)
    axes.set_xlim(0, max(1, max(len(values) for _, values in series) - 1))
    axes.legend(
        frameon=False, fontsize=9, labelcolor=INK, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=4
    )
    return png_of(figure)


def smoothness(series: Sequence[Smoothness], subtitle: str) -> bytes:
    """The channels' roughness over a run's checkpoints."""
    figure = _figure(7, 4.2, "How smooth the position embeddings became", subtitle)
    axes = figure.subplots()
    _inches(figure, 0.75, 0.35, 0.6)
    _curves(axes, "", "step", "roughness: 1 is noise, 0 is smooth")
    steps = [one.step or 0 for one in series]
    low, median, high = (np.array([getattr(one, key) for one in series]) for key in ("low", "median", "high"))
    axes.fill_between(steps, low, high, color=COLOURS[0], alpha=0.15, linewidth=0, label=BAND)
    axes.plot(
        steps, median, color=COLOURS[0], linewidth=1.8, marker="o", markersize=4, label="median channel"
    )
    axes.set_ylim(0, max(1.1, 1.05 * float(high.max())))
    axes.axhline(1, color=MUTED, linewidth=1.1, linestyle=(0, (2, 2)))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend(
        frameon=False, fontsize=9, labelcolor=INK, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2
    )
    return png_of(figure)


def weights(tensors: dict[str, np.ndarray], layer: int, subtitle: str) -> bytes:
    """A layer's matrices: a corner of each as it is, and how its numbers are spread."""
    matrices = [(name, array) for name, array in tensors.items() if array.ndim == 2][:MOST_MATRICES]
    columns = min(2, len(matrices))
    bands = -(-len(matrices) // columns)
    figure = _figure(3.2 * columns + 0.6, 1.3 + 4.6 * bands, f"Layer {layer}: weights", subtitle)
    panels = figure.subplots(2 * bands, columns, squeeze=False, height_ratios=[2.4, 1] * bands)
    _inches(figure, 0.55, 0.3, 0.45, 1.0, wspace=0.3, hspace=0.35)
    for axes in panels.flat:
        axes.set_axis_off()
    for number, (name, array) in enumerate(matrices):
        band, column = divmod(number, columns)
        image, spread = panels[2 * band, column], panels[2 * band + 1, column]
        image.set_axis_on()
        spread.set_axis_on()
        rows, across = array.shape
        _plain(image, f"{name}  {rows} x {across}")
        _signed(image, array[:CORNER, :CORNER], interpolation="nearest")
        _curves(spread, f"standard deviation {array.std():.4f}")
        limit = float(np.percentile(np.abs(array), CLIP_PERCENTILE)) or 1.0
        spread.hist(array.ravel(), bins=60, range=(-limit, limit), color=COLOURS[0])
        spread.set_yticks([])
        spread.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
    return png_of(figure)


def _name_tokens(axes: Axes, tokens: Sequence[str], x: bool, y: bool) -> None:
    """Names the tokens along the axes, unless there are too many to read."""
    for wanted, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        if not wanted:
            axis.set_ticks([])
        elif len(tokens) <= MOST_LABELS:
            axis.set_ticks(range(len(tokens)), tokens, parse_math=False)
        else:
            axis.set_major_locator(MaxNLocator(6, integer=True))
    if x and len(tokens) <= MOST_LABELS:
        axes.tick_params(axis="x", rotation=90)


def attention(maps: np.ndarray, tokens: Sequence[str], layer: int, subtitle: str) -> bytes:
    """A layer's heads (H, T, T): a row says what a position takes from which position.

    Colours go by the square root of the share, so that small ones show.
    """
    heads = len(maps)
    columns = 3 if heads in (3, 5, 6, 9) or heads > 8 else min(heads, 2)
    bands = -(-heads // columns)
    figure = _figure(3.3 * columns + 0.9, 1.5 + 3.35 * bands, f"Layer {layer}: attention", subtitle)
    panels = figure.subplots(bands, columns, squeeze=False)
    _inches(figure, 0.95, 0.2, 0.95, 1.0, wspace=0.08, hspace=0.14)
    for number, axes in enumerate(panels.flat):
        if number >= heads:
            axes.set_axis_off()
            continue
        _plain(axes, f"head {number}")
        axes.imshow(
            maps[number], cmap=SHARE, norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="auto"
        )
        lowest = number + columns >= heads
        _name_tokens(axes, tokens, lowest, number % columns == 0)
    figure.supxlabel("takes from", fontsize=9, color=MUTED, y=0.18 / figure.get_size_inches()[1])
    figure.supylabel("position", fontsize=9, color=MUTED, x=0.12 / figure.get_size_inches()[0])
    return png_of(figure)


def attention_overview(maps: Sequence[np.ndarray], subtitle: str) -> bytes:
    """All layers and heads as small maps, or evenly many of them; each of `maps` is (H, T, T)."""
    layers = _evenly(len(maps), MOST_ROWS)
    most = max(len(one) for one in maps)
    heads = _evenly(most, MOST_COLUMNS)
    size = min(1.3, 6.0 / len(heads))
    figure = _figure(7, 1.25 + size * len(layers), "Attention of every head", subtitle)
    panels = figure.subplots(len(layers), len(heads), squeeze=False)
    _inches(figure, 0.8, 6.2 - size * len(heads), 0.15, 1.1, wspace=0.08, hspace=0.08)
    for row, layer in enumerate(layers):
        for column, head in enumerate(heads):
            axes = panels[row, column]
            if head >= len(maps[layer]):
                axes.set_axis_off()
                continue
            axes.imshow(maps[layer][head], cmap=SHARE, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_color(FAINT)
            if not row:
                axes.set_title(f"{head}", fontsize=8, color=MUTED, pad=3)
            if not column:
                about: dict[str, Any] = {
                    "fontsize": 8,
                    "color": MUTED,
                    "rotation": 0,
                    "ha": "right",
                    "va": "center",
                }
                axes.set_ylabel(f"layer {layer}", **about)
    return png_of(figure)


def _evenly(n: int, most: int) -> list[int]:
    """
    >>> _evenly(3, 12), _evenly(48, 4)
    ([0, 1, 2], [0, 16, 31, 47])
    """
    return [int(i) for i in np.linspace(0, n - 1, min(n, most)).round()]


def logit_lens(
    rows: Sequence[LensRow], prompt: Sequence[str], said: Sequence[Sequence[str]], subtitle: str
) -> bytes:
    """What each layer would say next: the likeliest token at each of the last positions, coloured by its probability.

    Args:
        prompt: the prompt's tokens.
        said: for each row, the likeliest next token of each position.
    """
    first = max(0, len(prompt) - MOST_LENS_POSITIONS)
    shown = prompt[first:]
    p = np.array([row.probabilities[first:] for row in rows])
    figure = _figure(1.7 + 0.88 * len(shown), 1.75 + 0.36 * len(rows), "Logit lens", subtitle)
    width, _ = figure.get_size_inches()
    if width < 7.5:
        figure.set_figwidth(7.5)
    axes = figure.subplots()
    _inches(figure, 1.0, 0.3, 0.3, 1.1)
    _plain(axes, "")
    image = axes.imshow(p[::-1], cmap=SHARE, vmin=0, vmax=1, aspect="auto")
    _scale(figure, image, axes)
    names = ["embeddings", *[f"layer {row.layer - 1}" for row in rows[1:]]]
    axes.set_yticks(range(len(rows)), names[::-1])
    axes.set_xticks(range(len(shown)), shown, parse_math=False, fontsize=9, color=INK)
    axes.xaxis.tick_top()
    for number, words in enumerate(reversed(said)):
        for at, word in enumerate(words[first:]):
            ink = "white" if p[len(rows) - 1 - number, at] > 0.55 else INK
            axes.text(at, number, word, ha="center", va="center", fontsize=8, color=ink, parse_math=False)
    return png_of(figure)


def shares(rows: Sequence[TensorRow], subtitle: str) -> bytes:
    """Where the parameters are: a bar for each kind of tensor, the largest first."""
    shown = sorted(rows, key=lambda row: -row.parameters)[:MOST_BARS]
    figure = _figure(7, 1.2 + 0.27 * len(shown), "Where the parameters are", subtitle)
    axes = figure.subplots()
    _inches(figure, 2.4, 0.6, 0.2, 0.85)
    _plain(axes, "")
    axes.barh(range(len(shown)), [100 * row.share for row in shown], color=COLOURS[0], height=0.68)
    names = [f"{row.name}  x {row.count}" if row.count > 1 else row.name for row in shown]
    axes.set_yticks(range(len(shown)), names, parse_math=False, color=INK)
    axes.invert_yaxis()
    axes.set_xticks([])
    for number, row in enumerate(shown):
        axes.text(100 * row.share, number, f"  {row.share:.1%}", va="center", fontsize=8.5, color=MUTED)
    axes.set_xlim(0, 100 * shown[0].share * 1.08)
    return png_of(figure)


def undertrained(ranking: Ranking, listed: Sequence[int], names: Sequence[str], subtitle: str) -> bytes:
    """Every id's score, by its id; the lowest and the reference are set off.

    Args:
        listed: the ids with the lowest scores.
        names: theirs; a few are written.
    """
    figure = _figure(8.5, 5.2, "Under-trained tokens", subtitle)
    axes = figure.subplots()
    _inches(figure, 0.85, 0.35, 0.6)
    _curves(axes, "", "id", ranking.indicator)
    scores, reference = ranking.scores, list(ranking.reference)
    rest = np.setdiff1d(np.arange(len(scores)), [*listed, *reference])
    size = max(2.0, min(14.0, 9000 / len(scores)))
    axes.scatter(rest, scores[rest], s=size, color="#9aa3ad", linewidths=0, label=f"{len(rest):,} other ids")
    at = np.array(listed, dtype=int)
    axes.scatter(at, scores[at], s=26, color=COLOURS[1], linewidths=0, label=f"the first {len(at)}", zorder=3)
    if reference:
        text = f"{len(reference)} reference ids: no text has them"
        axes.scatter(
            reference,
            scores[reference],
            s=26,
            marker="D",
            color=COLOURS[0],
            linewidths=0,
            label=text,
            zorder=3,
        )
    if ranking.near is not None:
        axes.axhline(ranking.near, color=MUTED, linewidth=1.1, linestyle=(0, (2, 2)))
        if scores.min() > 0:
            axes.set_yscale("log")
            axes.minorticks_off()
            axes.yaxis.set_major_formatter(FuncFormatter(lambda score, _: f"{score:g}"))
    span, named = len(scores), list[int]()
    for id, name in zip(listed, names, strict=True):
        if len(named) == NAMED_POINTS or any(abs(id - other) < ROOM_OF_NAME * span for other in named):
            continue
        named.append(id)
        side = "right" if id > 0.8 * span else "left"
        about: dict[str, Any] = {"fontsize": 8, "color": INK, "ha": side, "va": "top", "parse_math": False}
        axes.annotate(name, (id, scores[id]), xytext=(0, -4), textcoords="offset points", **about)
    axes.set_xlim(-0.01 * span, 1.01 * span)
    axes.legend(
        frameon=False, fontsize=9, labelcolor=INK, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3
    )
    return png_of(figure)


def columns_with_variance(matrix: np.ndarray, count: int) -> list[int]:
    """The channels of (T, C) that vary most over the positions, the largest first.

    >>> columns_with_variance(np.array([[0.0, 0.0, 0.0], [1.0, 3.0, 2.0]]), 2)
    [1, 2]
    """
    return np.argsort(-matrix.var(axis=0), kind="stable")[: min(count, matrix.shape[1])].tolist()
