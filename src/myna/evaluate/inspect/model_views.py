"""Parts of a look inside that need no text: tensors, position embeddings and their smoothness, a layer's weights."""

import numpy as np

from myna.errors import UsageError
from myna.evaluate.inspect import pictures
from myna.evaluate.inspect.view import Drawn, Subject, View
from myna.evaluate.inspect.weights import (
    Smoothness,
    evenly,
    layer_tensors,
    positions_of,
    smoothness,
    smoothness_of_run,
    tensor_table,
)
from myna.html.chart import Chart, Curve
from myna.html.page import Table
from myna.progress import Progress

CHANNELS = 3  # drawn where none are named


def tensors_view(subject: Subject) -> View:
    """The table of tensors: names, shapes, shares, which are tied."""
    network = subject.network
    rows, total = tensor_table(network), network.n_parameters()
    config = network.config
    tied = any(row.is_tied for row in rows)
    lines = [
        f"{total:,} parameters in {sum(row.count for row in rows)} tensors: {config.n_layer} layers, {config.n_head} "
        f"heads, width {config.n_embd}, {config.block_size:,} positions, {config.vocab_size:,} ids.",
        f"The head and the token embedding ({network.vocabulary_rows[0]}) are one tensor, counted once: they are tied."
        if tied
        else "The head and the token embedding are two tensors: they are not tied.",
    ]

    def about(is_head: bool, is_tied: bool) -> str:
        return "token embedding, and the head" if is_tied else "the head" if is_head else ""

    table = Table(
        ("tensor", "of them", "shape", "parameters", "share", "is"),
        [
            (
                row.name,
                row.count,
                " x ".join(map(str, row.shape)),
                row.parameters,
                f"{row.share:.2%}",
                about(row.is_head, row.is_tied),
            )
            for row in rows
        ],
        "N stands for the layer's number; shapes are without the rows that pad the vocabulary",
    )
    picture = pictures.shares(rows, f"{subject.name} · {total:,} parameters")
    values = {
        "parameters": total,
        "tied": tied,
        "tensors": [
            {
                "name": row.name,
                "count": row.count,
                "shape": list(row.shape),
                "parameters": row.parameters,
                "share": row.share,
                "head": row.is_head,
                "tied": row.is_tied,
            }
            for row in rows
        ],
    }
    drawn = Drawn("tensors.png", picture, "Bars: the share of the parameters that each kind of tensor has")
    return View("Tensors", lines, values, [table], [drawn])


NO_POSITIONS = (
    "This network has no position embeddings, so there are none to show: it knows positions in another way."
)


def positions_view(subject: Subject) -> View:
    """The position embeddings: as a matrix, and some channels."""
    found, title = positions_of(subject.network), "Position embeddings"
    if found is None:
        return View(title, [NO_POSITIONS], {"name": None})
    values, name = found.cpu().numpy(), subject.network.position_embedding
    channels = list(subject.channels) or pictures.columns_with_variance(values, CHANNELS)
    if wrong := [channel for channel in channels if not 0 <= channel < values.shape[1]]:
        raise UsageError(
            f"--channels {wrong[0]}: the model has channels 0 to {values.shape[1] - 1}; give some of those"
        )
    T, C = values.shape
    which = "those named" if subject.channels else "those that vary most"
    lines = [
        f"{name}: {T:,} positions x {C:,} channels. A row is added to the token embedding at its position. "
        f"Channels {', '.join(map(str, channels))} are drawn: {which}."
    ]
    if subject.trained_positions is not None and subject.trained_positions < T:
        lines.append(f"Training used the first {subject.trained_positions:,} positions only.")
    series = [(f"channel {channel}", values[:, channel]) for channel in channels]
    at = np.arange(T)
    chart = Chart(
        "Some channels over the positions",
        [Curve(label, {"position": at}, y, colour=number) for number, (label, y) in enumerate(series)],
    )
    subtitle = f"{subject.name} · {name}"
    drawn = [
        Drawn(
            "positions.png",
            pictures.matrix(values, title, subtitle, "channel", "position"),
            f"The position embeddings as a matrix of {T} positions and {C} channels",
        ),
        Drawn(
            "channels.png",
            pictures.curves(series, "Position embeddings: some channels", subtitle, "position"),
            f"Channels {', '.join(map(str, channels))} over the positions",
            chart,
        ),
    ]
    return View(title, lines, {"name": name, "shape": [T, C], "channels": channels}, drawn=drawn)


def smoothness_view(subject: Subject) -> View:
    """How smooth the channels of the position embeddings became over a run's checkpoints."""
    title = "Smoothness of the position embeddings"
    if positions_of(subject.network) is None:
        return View(title, [NO_POSITIONS], {"checkpoints": []})
    trained, skipped = subject.trained_positions, list[str]()
    series: list[Smoothness] = []
    if subject.checkpoints:
        chosen = evenly(list(subject.checkpoints))
        with Progress("checkpoints", len(chosen)) as progress:
            for one in smoothness_of_run(chosen, trained, skipped):
                series.append(one)
                progress.advance(1)
    elif (alone := smoothness(subject.network, None, trained)) is not None:
        series = [alone]
    if not series:
        return View(
            title, ["The position embeddings do not vary, so they have no smoothness."], {"checkpoints": []}
        )
    last = series[-1]
    channel = pictures.columns_with_variance(last.positions, 1)[0]
    lines = [
        "Roughness of a channel: half the mean squared difference of neighbouring positions, divided by its variance "
        "(von Neumann's ratio, halved). Independent numbers, as at the start, give 1; a smooth curve gives nearly 0.",
        f"Measured over the first {len(last.positions):,} positions. Median of the channels: "
        + (
            f"{series[0].median:.3f} at step {series[0].step:,}, {last.median:.3f} at step {last.step:,}."
            if len(series) > 1
            else f"{last.median:.3f}."
        ),
    ]
    if not subject.checkpoints:
        lines.append("The model is of no run, so there are no earlier checkpoints to compare with.")
    lines += [f"Left out: {line}" for line in skipped]
    table = Table(
        ("step", "10th percentile", "median", "90th percentile"),
        [
            ("this model" if one.step is None else f"{one.step:,}", one.low, one.median, one.high)
            for one in series
        ],
        "Roughness of the channels",
    )
    steps = np.array([one.step or 0 for one in series])
    names = ("low", "median", "high")
    labels = ("10th percentile", "median channel", "90th percentile")
    charts = Chart(
        "Roughness of the channels",
        [
            Curve(label, {"step": steps}, [getattr(one, key) for one in series], colour=number, kind="dots")
            for number, (key, label) in enumerate(zip(names, labels, strict=True))
        ],
        from_zero=True,
    )
    shown = [
        (_step(one), one.positions[:, channel]) for one in {id(o): o for o in (series[0], last)}.values()
    ]
    one_channel = Chart(
        f"Channel {channel}",
        [
            Curve(label, {"position": np.arange(len(y))}, y, colour=number)
            for number, (label, y) in enumerate(shown)
        ],
    )
    drawn = [
        Drawn(
            "smoothness.png",
            pictures.smoothness(series, f"{subject.name} · {len(series)} checkpoints"),
            "The roughness of the position embeddings at each checkpoint",
            charts,
        ),
        Drawn(
            "channel.png",
            pictures.curves(shown, f"Channel {channel}, first and last", subject.name, "position"),
            f"Channel {channel} of the position embeddings at the first and the last checkpoint",
            one_channel,
        ),
    ]
    values = {
        "measure": "mean squared difference of neighbours / (2 x variance)",
        "positions": len(last.positions),
        "checkpoints": [{"step": o.step, "low": o.low, "median": o.median, "high": o.high} for o in series],
        "skipped": skipped,
    }
    return View(title, lines, values, [table], drawn if len(series) > 1 else drawn[1:])


def _step(one: Smoothness) -> str:
    return "this model" if one.step is None else f"step {one.step:,}"


def weights_view(subject: Subject) -> View:
    """A layer's weights."""
    layer = subject.layer
    tensors = {name: t.cpu().numpy() for name, t in layer_tensors(subject.network, layer).items()}
    lines = [
        f"Layer {layer} of 0 to {len(subject.network.blocks) - 1}. Matrices are (outputs, inputs); the picture has the "
        f"first {pictures.CORNER} rows and columns of each, and how its numbers are spread."
    ]
    figures = [
        (name, a.shape, float(a.mean()), float(a.std()), float(a.min()), float(a.max()))
        for name, a in tensors.items()
    ]
    table = Table(
        ("tensor", "shape", "mean", "standard deviation", "least", "most"),
        [(name, " x ".join(map(str, shape)), *numbers) for name, shape, *numbers in figures],
        f"Tensors of layer {layer}",
    )
    keys = ("mean", "std", "min", "max")
    values = {
        "layer": layer,
        "tensors": [
            {"name": name, "shape": list(shape)} | dict(zip(keys, numbers, strict=True))
            for name, shape, *numbers in figures
        ],
    }
    drawn = []
    if any(a.ndim == 2 for a in tensors.values()):
        picture = pictures.weights(tensors, layer, subject.name)
        drawn.append(Drawn(f"weights_layer_{layer}.png", picture, f"The matrices of layer {layer}"))
    return View(f"Weights of layer {layer}", lines, values, [table], drawn)
