"""All continuations of some prompts, in the order asked for, a few at a time in one engine."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
    engine: TextEngine,
    prompts: Sequence[str],
    count: int,
    sampling: Sampling,
    together: int,
    encode: Callable[[str], Sequence[int]] | None = None,
) -> Iterator[Text]:
    """All texts, in the order asked for. So many are computed together; one that ends makes room for the next.

    Args:
        encode: the ids to go on from, of a prompt; None: those of its text.
    """
    waiting = deque((prompt, 0) for prompt in prompts)  # each with the number of its next text
    order: dict[Continuation, Text] = {}  # those not handed out yet, in the order asked for
    while waiting or order:
        room = together - sum(made.finish_reason is None for made in order)
        while waiting and room > 0:
            prompt, first = waiting.popleft()
            n = min(count - first, room)  # of the same prompt, which is then computed once
            made = engine.add(encode(prompt) if encode else prompt, sampling, count=n, first_row=first)
            order |= {one: Text(prompt, first + more) for more, one in enumerate(made)}
            room -= n
            if first + n < count:
                waiting.appendleft((prompt, first + n))
        for piece in engine.step():
            if piece.new.error:
                raise piece.new.error
            one = piece.continuation
            order[one] = replace(order[one], new=order[one].new + piece.text)
        while order and (one := next(iter(order))).finish_reason:
            yield replace(order.pop(one), n_new=one.n_new, finish_reason=one.finish_reason)


def window_bytes(config: NetworkConfig) -> int:
    """Bytes of the keys and values (fp32) of a text that fills a model's window."""
    return 2 * 4 * config.n_layer * config.block_size * config.n_embd


def rows_at_once(config: NetworkConfig) -> int:
    """How many continuations to compute together, so that their keys and values stay under `CACHE_BYTES`."""
    return max(1, min(MOST_ROWS, CACHE_BYTES // window_bytes(config)))
