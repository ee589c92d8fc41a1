"""Tokens by their embeddings: the nearest of one, and those that training hardly or never saw ("SolidGoldMagikarp").

A tokenizer may have tokens that the training text lacks. Nothing but a push away from every prediction then moves
their row in the output embeddings, and it is the same push for all of them: training makes their logits small whatever
the context. So these rows come to lie beside each other. The ranking is by their distance to the rows of ids that
no text can have.

Source:
    Land and Bartolo 2024, "Fishing for Magikarp", arXiv:2405.05417, section 2.2, and the authors' code
    (github.com/cohere-ai/magikarp), whose reports on GPT-2 rank by the same distance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from myna.errors import TokenizerError
from myna.model.network import Network
from myna.text.tokenizer import Tokenizer

# Bytes that no UTF-8 text has: 0xC0 and 0xC1 would begin a character that has a shorter form, 0xF5 and up one past
# Unicode's last. (RFC 3629, section 1.)
NOT_IN_UTF8 = frozenset([0xC0, 0xC1, *range(0xF5, 0x100)])

FEWEST_REFERENCES = 3
# Once a model has learned anything, ids that no text has lie within this part of the distance of far ids: 0.01 to 0.34
# of it in small models of two networks after 60 to 300 steps; 0.54 to 1.02 where training saw them.
ALIKE = 0.4
FAR_PERCENTILE = 95  # most ids may be unseen: in Tiny Shakespeare byte by byte, three of four
# In the demo after 150 steps this took in all 188 ids that its text lacks, and 76 that it has 1 to 15 times.
NEAR_DEVIATIONS = 4
MOST_CONTEXTS = 1024  # for the mean logit
CONTEXTS_AT_ONCE = 128


@dataclass(frozen=True)
class Ranking:
    """How little training seems to have seen each id: the lowest score first.

    Attributes:
        indicator: what a score is, for people.
        why: why it is this indicator.
        scores: (V,) float32.
        reference: ids that no text has, which the others were compared with; they are not ranked.
        near: scores up to this are as the reference's own: the mean of what each reference scores against the others,
            and `NEAR_DEVIATIONS` standard deviations. None where there is no reference.
    """

    indicator: str
    why: str
    scores: np.ndarray
    reference: tuple[int, ...]
    near: float | None

    def first(self, count: int) -> list[int]:
        """The ids with the lowest scores, without the reference."""
        known = set(self.reference)
        order = np.argsort(self.scores, kind="stable").tolist()
        return [id for id in order if id not in known][:count]

    def never_seen(self, id: int) -> bool:
        """Whether it scores as the reference does, so that training hardly or never saw it."""
        return self.near is not None and bool(self.scores[id] <= self.near)

    def n_never_seen(self) -> int:
        """How many ids do, without the reference."""
        if self.near is None:
            return 0
        return int((np.delete(self.scores, list(self.reference)) <= self.near).sum())


def rank_by_training(network: Network, tokenizer: Tokenizer) -> Ranking:
    """Ranks all ids of a model by how little training seems to have seen them.

    The score is the cosine distance between an id's row in the output embeddings and the mean row of `unwritable`
    ids. Where there are fewer than `FEWEST_REFERENCES` of those, or where they lie far from each other, the score is
    the id's mean logit after each of many single ids.
    """
    reference = unwritable(tokenizer, network.config.vocab_size)
    rows = output_rows(network)
    if len(reference) < FEWEST_REFERENCES:
        found = f"{len(reference)} of them" if reference else "none"
        return _by_mean_logit(network, f"the vocabulary has {found}; the distance needs {FEWEST_REFERENCES}")
    scores = cosine_distance(rows, rows[reference].mean(dim=0))
    own = torch.stack([_to_the_others(rows, reference, number) for number in range(len(reference))])
    closeness = float(own.median()) / float(np.percentile(scores.numpy(), FAR_PERCENTILE))
    if closeness > ALIKE:
        return _by_mean_logit(
            network,
            f"the {len(reference)} that it has lie {closeness:.2f} of the distance of far ids apart, over {ALIKE}: the "
            "model has learned too little, or was trained on them",
        )
    return Ranking(
        indicator="cosine distance to the mean row of the reference ids",
        why=f"the {len(reference)} reference ids lie {closeness:.2f} of the distance of far ids apart",
        scores=scores.numpy(),
        reference=tuple(reference),
        near=float(own.mean() + NEAR_DEVIATIONS * own.std()),
    )


def unwritable(tokenizer: Tokenizer, vocab_size: int) -> list[int]:
    """Ids of a model that no text has: without a token, or a token with a byte that UTF-8 does not use."""
    found = []
    for id in range(vocab_size):
        data = token_bytes(tokenizer, id)
        if data is None or not NOT_IN_UTF8.isdisjoint(data):
            found.append(id)
    return found


def token_bytes(tokenizer: Tokenizer, id: int) -> bytes | None:
    """The bytes of an id; None where no token has it, as where a model has more ids than its tokenizer."""
    try:
        return tokenizer.token_bytes(id)
    except TokenizerError:
        return None


def token_embeddings(network: Network) -> Tensor:
    """(V, C): the row of each id in the token embedding, without padding."""
    name = network.vocabulary_rows[0]
    return network.unpadded(name, dict(network.named_parameters())[name]).detach()


def output_rows(network: Network) -> Tensor:
    """(V, C): the row of each id in the head, without padding. The token embedding's own, where they are tied."""
    head = network.head_weight
    assert isinstance(head, Tensor)  # weights of a model that was just read are as in its files
    return head.detach()[: network.config.vocab_size]


def cosine_distance(rows: Tensor, to: Tensor) -> Tensor:
    """1 less the cosine of each row's angle to a vector; 1 for a row of zeros.

    Shapes:
        rows     (N, C)
        to       (C,)
        returns  (N,)

    >>> cosine_distance(torch.eye(2), torch.tensor([3.0, 0.0])).tolist()
    [0.0, 1.0]
    """
    return 1 - torch.nn.functional.cosine_similarity(rows, to[None], dim=1)


def _to_the_others(rows: Tensor, reference: Sequence[int], number: int) -> Tensor:
    """The distance of one reference to the mean of the others."""
    others = [id for at, id in enumerate(reference) if at != number]
    return cosine_distance(rows[reference[number]][None], rows[others].mean(dim=0))[0]


def _by_mean_logit(network: Network, why: str) -> Ranking:
    V = network.config.vocab_size
    contexts = torch.arange(0, V, -(-V // MOST_CONTEXTS), device=network.device)[:, None]  # (N, 1)
    total = torch.zeros(V, dtype=torch.float64)
    with torch.no_grad():
        for some in contexts.split(CONTEXTS_AT_ONCE):
            total += network.logits(network.hidden(some))[:, 0].double().sum(dim=0)
    return Ranking(
        indicator=f"mean logit after each of {len(contexts):,} single ids",
        why=f"no reference to compare with (ids that no text has): {why}",
        scores=(total / len(contexts)).float().numpy(),
        reference=(),
        near=None,
    )


def reason(tokenizer: Tokenizer, id: int) -> str:
    """What the tokenizer tells of why training may not have seen an id.

    >>> tok = Tokenizer.gpt2()
    >>> reason(tok, 50256), reason(tok, 222)
    ('special token', 'byte fragment: part of a character')
    >>> reason(tok, 30208)
    'never or hardly seen, though text can have it'
    """
    data = token_bytes(tokenizer, id)
    if data is None:
        return "no token has this id"
    if id in tokenizer.special_tokens.values():
        return "special token"
    if not NOT_IN_UTF8.isdisjoint(data):
        return "no text has it: a byte that UTF-8 does not use"
    try:
        text = data.decode("utf-8") if tokenizer.is_exact else tokenizer.decode([id])
    except UnicodeDecodeError:
        return "byte fragment: part of a character"
    # Some tokenizers write a word in another way at the start of a text.
    texts = [text] if tokenizer.is_exact else [text, f" {text}", f"a{text}"]
    written = [tokenizer.encode(text) for text in texts]
    if not any(id in ids for ids in written):
        return f"unreachable: the tokenizer writes it as {' '.join(map(str, written[0]))}"
    return "never or hardly seen, though text can have it"


@dataclass(frozen=True)
class Neighbour:
    """A token near another."""

    id: int
    cosine: float


def nearest(network: Network, id: int, count: int) -> list[Neighbour]:
    """The ids whose token embeddings point most nearly the same way as an id's, nearest first, without itself."""
    rows = token_embeddings(network)
    cosine = 1 - cosine_distance(rows, rows[id])
    cosine[id] = -torch.inf
    found = cosine.topk(min(count, len(rows) - 1))
    return [Neighbour(int(i), float(c)) for i, c in zip(found.indices, found.values, strict=True)]
