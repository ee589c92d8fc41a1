"""Myna reproduces GPT-2, from raw text to a served model.

The public names are imported when first used, so that `import myna` is instant and worker processes that only
tokenize never pay for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from myna.generate.engine import generate
    from myna.model.config import GPTConfig
    from myna.model.gpt2 import GPT
    from myna.text.tokenizer import Tokenizer

__all__ = ["GPT", "GPTConfig", "Tokenizer", "generate"]

_HOME = {
    "GPT": "myna.model.gpt2",
    "GPTConfig": "myna.model.config",
    "Tokenizer": "myna.text.tokenizer",
}


def __getattr__(name: str) -> Any:
    if name == "generate":  # the room of that name can be called: see there
        return importlib.import_module("myna.generate")
    if name not in _HOME:
        raise AttributeError(f"module 'myna' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # so that Python asks only once
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
