"""Parts of a look inside that speak of tokens: attention, the logit lens, nearest and under-trained tokens."""

from myna.evaluate.inspect import pictures
from myna.evaluate.inspect.prompt import Trace, habits, lens_rows, trace
from myna.evaluate.inspect.tokens import nearest, rank_by_training, reason
from myna.evaluate.inspect.view import Drawn, Subject, View
from myna.evaluate.inspect.weights import check_layer
from myna.html.page import Table

NEAREST, NEAREST_OF_EACH = 20, 5
MOST_PROMPT_TOKENS = 12  # whose nearest are listed, where no token is named
UNDERTRAINED = 50  # listed
LENGTH_OF_SUBTITLE = 95  # characters that fit


def _prompt(subject: Subject) -> tuple[Trace, str]:
    """The prompt's way through the network, and its text as a subtitle."""
    text = "".join(subject.label(id) for id in subject.prompt)
    if len(text) > LENGTH_OF_SUBTITLE:
        text = text[:LENGTH_OF_SUBTITLE] + "…"
    return trace(subject.network, subject.prompt), text


def attention_view(subject: Subject) -> View:
    """The attention maps of a prompt."""
    seen, text = _prompt(subject)
    layer, n_layer, T = subject.layer, len(subject.network.blocks), len(subject.prompt)
    check_layer(subject.network, layer)
    maps = [seen.attention(number).cpu().numpy() for number in range(n_layer)]
    title = "Attention"
    if not any(len(one) for one in maps):
        return View(
            title, ["No layer of this network calls `attention`, so there are no maps."], {"layers": []}
        )
    every = [
        [vars(habit) for habit in habits(seen.attention(number))] if T > 1 else []
        for number in range(n_layer)
    ]
    lines = [
        f"The prompt is {T} tokens: {' '.join(subject.labels(subject.prompt))}. Row t of a map says what position t "
        "takes from itself and from each position before it; a row adds up to 1. Colours go by the square root."
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
                f"Layer {layer}: shares of each head's attention, the mean over positions 1 to {T - 1}",
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


def percent(share: float) -> str:
    """
    >>> percent(0.1234), percent(0.00012)
    ('12.3%', '0.012%')
    """
    return f"{share:.1%}" if share >= 0.001 else f"{100 * share:.2g}%"


def lens_view(subject: Subject) -> View:
    """What each layer would predict after a prompt."""
    seen, text = _prompt(subject)
    rows = lens_rows(subject.network, seen)
    n_layer, last = len(rows) - 1, rows[-1]
    settled = next(n for n in range(n_layer + 1) if all(row.ids[-1] == last.ids[-1] for row in rows[n:]))
    where = "the embeddings" if not settled else f"layer {settled - 1}"
    lines = [
        "What the residual stream after each layer would predict, if it went through the last norm and the head at "
        "once. The last row is what the model says.",
        f"After {subject.text(subject.prompt[-1])} the model says {subject.text(last.ids[-1])} "
        f"({percent(last.probabilities[-1])}), and so does every layer from {where} on.",
    ]
    table = Table(
        ("after", "nats", "next token, and its probability"),
        [
            (
                "embeddings" if not row.layer else f"layer {row.layer - 1}",
                "" if row.nats is None else f"{row.nats:.2f}",
                "  ".join(f"{subject.cell(id)} {percent(p)}" for id, p in row.top),
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


def nearest_view(subject: Subject) -> View:
    """The tokens nearest to one, or to each of a prompt's."""
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


def undertrained_view(subject: Subject) -> View:
    """The tokens that training hardly or never saw."""
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
    drawn = Drawn(
        "undertrained.png", picture, "The score of every id; the lowest and the reference are set off"
    )
    return View("Under-trained tokens", lines, values, [table], [drawn])
