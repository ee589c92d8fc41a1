"""The parts of a look inside a model, by name: each gives sentences, a table, pictures, and its numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from myna.errors import UsageError, unknown_name
from myna.evaluate import inspect_pictures as pictures
from myna.evaluate.inspect_prompt import Trace, habits, lens_rows, trace
from myna.evaluate.inspect_tokens import nearest, rank_by_training, reason, token_bytes
from myna.evaluate.inspect_weights import (
    Smoothness,
    check_layer,
    evenly,
    layer_tensors,
    positions_of,
    smoothness,
    smoothness_of_run,
    tensor_table,
)
from myna.html.page import Block, Chart, Curve, Picture, Section, SideBySide, Table, Text
from myna.model.network import Network
from myna.progress import Progress
from myna.text.render import exact
from myna.text.tokenizer import Tokenizer

NEAREST, NEAREST_OF_EACH = 20, 5
MOST_PROMPT_TOKENS = 12  # whose nearest are listed, where no token is named
CHANNELS = 3  # drawn where none are named
UNDERTRAINED = 50  # listed
LENGTH_OF_SUBTITLE = 95  # characters that fit
MOST_LETTERS = 24  # of a token in a table


@dataclass(frozen=True)
class Subject:
    """What is looked at, and at what of it.

    Attributes:
        name: of the model, for people.
        tokenizer: None where it has none; then the parts that need one are left out.
        prompt: ids.
        token: the id whose nearest are wanted; None for those of the prompt.
        layer: counted from 0.
        channels: of the position embeddings; none for those that vary most.
        checkpoints: of its run, oldest first; none where it is of no run.
        trained_positions: positions that training used; None for all.
    """

    name: str
    network: Network
    tokenizer: Tokenizer | None
    prompt: Sequence[int] = ()
    token: int | None = None
    layer: int = 0
    channels: Sequence[int] = ()
    checkpoints: Sequence[Path] = ()
    trained_positions: int | None = None

    @property
    def tok(self) -> Tokenizer:
        """The tokenizer, for a part that needs one."""
        assert self.tokenizer is not None
        return self.tokenizer

    def label(self, id: int) -> str:
        """An id's token, short, for a picture."""
        return pictures.label(token_bytes(self.tok, id))

    def text(self, id: int) -> str:
        """An id's token, exactly: a JSON string, or hexadecimal for what is not UTF-8."""
        data = token_bytes(self.tok, id)
        return "no token" if data is None else exact(data)

    def cell(self, id: int) -> str:
        """The same for a table, which has no room for a line of dashes."""
        text = self.text(id)
        return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"

    def labels(self, ids: Sequence[int]) -> list[str]:
        """Theirs."""
        return [self.label(id) for id in ids]


@dataclass(frozen=True)
class Drawn:
    """A picture's name, its PNG, what it shows, and what the page shows in its place, if it can do better."""

    file: str
    png: bytes
    alt: str
    chart: Chart | None = None

    def block(self) -> Block:
        """For the page."""
        return self.chart or Picture(self.png, self.alt)


@dataclass(frozen=True)
class View:
    """What a part shows."""

    title: str
    lines: Sequence[str]
    values: Mapping[str, Any]
    tables: Sequence[Table] = ()
    drawn: Sequence[Drawn] = field(default=())

    def section(self) -> Section:
        """For the page."""
        drawn = [one.block() for one in self.drawn]
        pair = [SideBySide(drawn)] if len(drawn) > 1 else drawn
        return Section(self.title, [Text("\n\n".join(self.lines)), *pair, *self.tables])


def _tensors(subject: Subject) -> View:
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
    "This network has no position embeddings, so there are none to show: it computes positions in another way."
)


def _positions(subject: Subject) -> View:
    found, title = positions_of(subject.network), "Position embeddings"
    if found is None:
        return View(title, [NO_POSITIONS], {"name": None})
    values, name = found.cpu().numpy(), subject.network.position_embedding
    channels = list(subject.channels) or pictures.columns_with_variance(values, CHANNELS)
    if wrong := [channel for channel in channels if not 0 <= channel < values.shape[1]]:
        raise UsageError(f"--channels {wrong[0]}: the model has channels 0 to {values.shape[1] - 1}")
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


def _smoothness(subject: Subject) -> View:
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
        return View(title, ["The position embeddings do not vary, so they have no smoothness."], {"checkpoints": []})
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
        [("" if one.step is None else f"{one.step:,}", one.low, one.median, one.high) for one in series],
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
    shown = [(_step(one), one.positions[:, channel]) for one in {id(o): o for o in (series[0], last)}.values()]
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


def _weights(subject: Subject) -> View:
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


def _prompt(subject: Subject) -> tuple[Trace, str]:
    """The prompt's way through the network, and its text as a subtitle."""
    text = "".join(subject.label(id) for id in subject.prompt)
    if len(text) > LENGTH_OF_SUBTITLE:
        text = text[:LENGTH_OF_SUBTITLE] + "…"
    return trace(subject.network, subject.prompt), text


def _attention(subject: Subject) -> View:
    seen, text = _prompt(subject)
    layer, n_layer, T = subject.layer, len(subject.network.blocks), len(subject.prompt)
    check_layer(subject.network, layer)
    maps = [seen.attention(number).cpu().numpy() for number in range(n_layer)]
    title = "Attention"
    if not any(len(one) for one in maps):
        return View(title, ["No layer of this network calls `attention`, so there are no maps."], {"layers": []})
    every = [
        [vars(habit) for habit in habits(seen.attention(number))] if T > 1 else [] for number in range(n_layer)
    ]
    lines = [
        f"The prompt is {T} tokens: {' '.join(subject.labels(subject.prompt))}. Row t of a map says what position t takes "
        "from itself and from each position before it; a row adds up to 1."
    ]
    if T == 1:
        lines.append("A prompt of one token has no choice where to look; give a longer --prompt.")
    tables, drawn = [], []
    if every[layer]:
        tables.append(
            Table(
                ("head", "first position", "the one before", "itself"),
                [
                    (str(h["head"]), *(f"{h[key]:.3f}" for key in ("first", "previous", "itself")))
                    for h in every[layer]
                ],
                f"Layer {layer}: the share of its attention that each head gives to these, mean over positions 1 to {T - 1}",
            )
        )
    if len(maps[layer]):
        drawn.append(
            Drawn(
                f"attention_layer_{layer}.png",
                pictures.attention(maps[layer], subject.labels(subject.prompt), layer, text),
                f"The attention maps of the heads of layer {layer}",
            )
        )
    drawn.append(
        Drawn(
            "attention.png",
            pictures.attention_overview(maps, text),
            "Small attention maps: a row for each layer, a column for each head",
        )
    )
    values = {"prompt_ids": list(subject.prompt), "layers": every}
    return View(title, lines, values, tables, drawn)


def _lens(subject: Subject) -> View:
    seen, text = _prompt(subject)
    rows = lens_rows(subject.network, seen)
    n_layer, last = len(rows) - 1, rows[-1]
    settled = next(n for n in range(n_layer + 1) if all(row.ids[-1] == last.ids[-1] for row in rows[n:]))
    where = "the embeddings" if not settled else f"layer {settled - 1}"
    lines = [
        "What the residual stream after each layer would predict, if it went through the last norm and the head at "
        "once. The last row is what the model says.",
        f"After {subject.text(subject.prompt[-1])} the model says {subject.text(last.ids[-1])} "
        f"({last.probabilities[-1]:.1%}), and so does every layer from {where} on.",
    ]
    table = Table(
        ("after", "nats", "next token, and its probability"),
        [
            (
                "embeddings" if not row.layer else f"layer {row.layer - 1}",
                "" if row.nats is None else f"{row.nats:.2f}",
                "  ".join(f"{subject.cell(id)} {p:.1%}" for id, p in row.top),
            )
            for row in rows
        ],
        "Nats: the mean loss of the prompt's own tokens. Beside them the likeliest tokens after the prompt",
    )
    picture = pictures.logit_lens(
        rows, subject.labels(subject.prompt), [subject.labels(row.ids) for row in rows], text
    )
    values = {
        "prompt_ids": list(subject.prompt),
        "layers": [
            {
                "after": row.layer,
                "nats": row.nats,
                "ids": row.ids,
                "probabilities": row.probabilities,
                "top": [{"id": id, "token": subject.text(id), "probability": p} for id, p in row.top],
            }
            for row in rows
        ],
    }
    drawn = Drawn("lens.png", picture, "What each layer would say after each position, and how sure it is")
    return View("Logit lens", lines, values, [table], [drawn])


def _nearest(subject: Subject) -> View:
    rows = subject.network.vocabulary_rows[0]
    line = f"Cosine of the angle between rows of {rows}, the token embedding: 1 is the same direction, 0 a right angle."
    if subject.token is not None:
        found = nearest(subject.network, subject.token, NEAREST)
        table = Table(
            ("token", "id", "cosine"),
            [(subject.cell(one.id), one.id, f"{one.cosine:.3f}") for one in found],
            f"Nearest to {subject.text(subject.token)}, id {subject.token}",
        )
        of = {subject.token: found}
    else:
        of = {
            id: nearest(subject.network, id, NEAREST_OF_EACH)
            for id in list(dict.fromkeys(subject.prompt))[:MOST_PROMPT_TOKENS]
        }
        table = Table(
            ("token", "id", "nearest, and their cosine"),
            [
                (subject.cell(id), id, "  ".join(f"{subject.cell(one.id)} {one.cosine:.2f}" for one in found))
                for id, found in of.items()
            ],
            "Nearest to the tokens of the prompt; --token names another",
        )
    values = {
        "tokens": [
            {
                "id": id,
                "token": subject.text(id),
                "nearest": [
                    {"id": one.id, "token": subject.text(one.id), "cosine": one.cosine} for one in found
                ],
            }
            for id, found in of.items()
        ]
    }
    return View("Nearest tokens", [line], values, [table])


def _undertrained(subject: Subject) -> View:
    ranking = rank_by_training(subject.network, subject.tok)
    listed = ranking.first(UNDERTRAINED)
    lines = [
        f"Ranked by {ranking.indicator}, lowest first, after Land and Bartolo 2024 (arXiv:2405.05417): {ranking.why}."
    ]
    if ranking.reference:
        some = ", ".join(f"{subject.text(id)} ({id})" for id in ranking.reference[:13])
        more = " and others" if len(ranking.reference) > 13 else ""
        lines.append(f"Reference, ids that no text has: {some}{more}. They are not listed.")
        lines.append(
            f"{ranking.n_never_seen():,} other ids lie as near as the reference ids lie to each other (up to "
            f"{ranking.near:.3f}): training hardly or never saw them."
        )
    columns = [(id, float(ranking.scores[id]), reason(subject.tok, id)) for id in listed]
    near = [ranking.never_seen(id) for id in listed]
    header = ("token", "id", "score", *(("near the reference",) if ranking.reference else ()), "reason")
    table = Table(
        header,
        [
            (
                subject.cell(id),
                id,
                f"{score:.4f}",
                *(("yes" if never else "no",) if ranking.reference else ()),
                why,
            )
            for (id, score, why), never in zip(columns, near, strict=True)
        ],
        f"The first {len(listed)}",
    )
    picture = pictures.undertrained(ranking, listed, subject.labels(listed), subject.name)
    values = {
        "indicator": ranking.indicator,
        "why": ranking.why,
        "reference": list(ranking.reference),
        "near": ranking.near,
        "never_seen": ranking.n_never_seen(),
        "tokens": [
            {"id": id, "token": subject.text(id), "score": score, "near": never, "reason": why}
            for (id, score, why), never in zip(columns, near, strict=True)
        ],
    }
    drawn = Drawn("undertrained.png", picture, "The score of every id; the lowest and the reference are set off")
    return View("Under-trained tokens", lines, values, [table], [drawn])


@dataclass(frozen=True)
class Part:
    """A line of the table.

    Attributes:
        needs_tokenizer: whether it speaks of tokens.
        needs_prompt: whether it runs one.
    """

    look: Callable[[Subject], View]
    needs_tokenizer: bool = False
    needs_prompt: bool = False


PARTS = {
    "tensors": Part(_tensors),
    "positions": Part(_positions),
    "smoothness": Part(_smoothness),
    "weights": Part(_weights),
    "attention": Part(_attention, needs_tokenizer=True, needs_prompt=True),
    "lens": Part(_lens, needs_tokenizer=True, needs_prompt=True),
    "nearest": Part(_nearest, needs_tokenizer=True),
    "undertrained": Part(_undertrained, needs_tokenizer=True),
}


def named_parts(names: Sequence[str]) -> list[str]:
    """Parts by their names, each once.

    Raises:
        UsageError: there is no such part.
    """
    for name in names:
        if name not in PARTS:
            raise unknown_name("part", name, list(PARTS))
    if not names:
        raise UsageError(f"--show names no part; there are: {', '.join(PARTS)}")
    return list(dict.fromkeys(names))
