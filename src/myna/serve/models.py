"""The models that a server serves, by the names it gives them."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from myna.generate.text import TextEngine
from myna.model.network import Network
from myna.serve.errors import ApiError
from myna.serve.worker import Worker
from myna.text.chat import can_chat
from myna.text.fim import can_fill
from myna.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Served:
    """One model.

    Attributes:
        name: what requests call it.
        weights: how they are stored: fp32, bf16 or int8.
    """

    name: str
    model: Network
    tokenizer: Tokenizer
    worker: Worker
    weights: str
    opened: int  # seconds since 1970

    @property
    def context(self) -> int:
        """Tokens that the model sees at most."""
        return self.model.config.block_size

    def about(self) -> dict[str, Any]:
        """Its line in /v1/models."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.opened,
            "owned_by": "myna",
            "context_length": self.context,
            "vocabulary": self.tokenizer.n_vocab,
            "tokenizer": self.tokenizer.name,
            "weights": self.weights,
            "can_chat": can_chat(self.tokenizer),
            "can_fill": can_fill(self.tokenizer),
        }


class Models:
    """Those there are, in order; the first is the default."""

    def __init__(self, served: Iterable[Served]):
        self._served = {one.name: one for one in served}

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._served.values())

    def named(self, name: str | None) -> Served:
        """
        Raises:
            ApiError: 404: it isn't there. 400: no name, and several models.
        """
        if name is None:
            if len(self._served) > 1:
                raise ApiError(400, f"model is missing; give one of {', '.join(self._served)}", param="model")
            return next(iter(self._served.values()))
        if name not in self._served:
            raise ApiError(
                404,
                f"there is no model {name!r}; there are: {', '.join(self._served)}",
                param="model",
                code="model_not_found",
            )
        return self._served[name]


def unique_names(specs: Iterable[str]) -> list[str]:
    """Short names for MODELs, each once: the last part of a path, and a number where it came before.

    >>> unique_names(["runs/a", "gpt2", "old/a/", "caf\\udce9"])
    ['a', 'gpt2', 'a-2', 'caf?']
    """
    names: list[str] = []
    for spec in specs:
        # A folder's name may be no Unicode; the API's names are.
        short = (Path(spec).name or spec).encode("utf-8", "replace").decode("utf-8")
        name, number = short, 1
        while name in names:
            number += 1
            name = f"{short}-{number}"
        names.append(name)
    return names


def serve_model(
    name: str,
    model: Network,
    tokenizer: Tokenizer,
    weights: str,
    most_texts: int,
    prefix_bytes: int,
    **options: Any,
) -> Served:
    """A model with its worker at work."""
    engine = TextEngine(model, tokenizer, prefix_bytes=prefix_bytes, **options)
    return Served(name, model, tokenizer, Worker(engine, most_texts), weights, int(time.time()))
