"""All continuations of some prompts, in the order asked for, a few at a time in one engine."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from myna.generate.sampling import Sampling
from myna.generate.text import Continuation, TextEngine
from myna.model.config import NetworkConfig

CACHE_BYTES = 2 << 30
MOST_ROWS = 64


@dataclass(frozen=True)
class Text:
    """One continuation to be made, or made."""

    prompt: str
    number: int  # among those of its prompt, from 0
    new: str = ""
    n_new: int = 0
    finish_reason: str | None = None


def in_order(
    engine: TextEngine, prompts: Sequence[str], count: int, sampling: Sampling, together: int
) -> Iterator[Text]:
    """All texts, in the order asked for. So many are computed together; one that ends makes room for the next."""
    waiting = deque(Text(prompt, number) for prompt in prompts for number in range(count))
    order: dict[Continuation, Text] = {}  # those not handed out yet, in the order asked for
    while waiting or order:
        room = together - sum(made.finish_reason is None for made in order)
        while waiting and room > 0:
            first = waiting.popleft()
            alike = [first]  # and further ones of the same prompt, which is then computed once
            while waiting and waiting[0].number > first.number and len(alike) < room:
                alike.append(waiting.popleft())
            made = engine.add(first.prompt, sampling, count=len(alike), first_row=first.number)
            order |= zip(made, alike, strict=True)
            room -= len(alike)
        for piece in engine.step():
            if piece.new.error:
                raise piece.new.error
            one = piece.continuation
            order[one] = replace(order[one], new=order[one].new + piece.text)
        while order and (one := next(iter(order))).finish_reason:
            yield replace(order.pop(one), n_new=one.n_new, finish_reason=one.finish_reason)


def rows_at_once(config: NetworkConfig) -> int:
    """How many continuations to compute together, so that their keys and values (fp32) stay under `CACHE_BYTES`."""
    a_row = 2 * 4 * config.n_layer * config.block_size * config.n_embd
    return max(1, min(MOST_ROWS, CACHE_BYTES // a_row))
