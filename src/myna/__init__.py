"""Myna reproduces GPT-2, from raw text to a served model.

Comments and docstrings speak of "the lecture": Andrej Karpathy's "Let's reproduce GPT-2 (124M)", whose code is
build-nanogpt. The lecture before it is about tokens: "Let's build the GPT Tokenizer".

The public names are imported when first used, so that `import myna` is instant and worker processes that only
tokenize never pay for torch.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from myna.generate.engine import generate
    from myna.model.config import GPTConfig
    from myna.model.gpt2 import GPT
    from myna.text.tokenizer import Tokenizer

    __version__: str

__all__ = ["GPT", "GPTConfig", "Tokenizer", "generate"]

_HOME = {
    "GPT": "myna.model.gpt2",
    "GPTConfig": "myna.model.config",
    "Tokenizer": "myna.text.tokenizer",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # pyproject.toml states it; asked for when used, since the answer takes a while
        return importlib.import_module("myna.version").version()
    if name not in _HOME:
        raise AttributeError(f"module 'myna' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # so that Python asks only once
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """This package, where `generate` is the function, though a room has the same name.

    After it has imported a room, Python binds the room's module to its name here, which would hide the function. So
    the name is a property, which ignores that.
    """

    @property
    def generate(self) -> Any:
        function = importlib.import_module("myna.generate.engine").generate
        # The function has the room's attributes too: `import myna.generate.engine as engine` looks them up here.
        function.__dict__ = sys.modules["myna.generate"].__dict__
        return function

    @generate.setter
    def generate(self, room: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Package
