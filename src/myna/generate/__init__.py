"""A model and a prompt to new text.

`myna.generate` names two things: this room, and the function `generate` that it is built for. Python binds a
package's name to the package as soon as anything in it is imported, so the room itself can be called:
`from myna import generate` gives what is expected, whatever was imported before.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class _CallableRoom(ModuleType):
    def __call__(self, model: Any, ids: "Tensor", **options: Any) -> list[list[int]]:
        """See `myna.generate.engine.generate`."""
        from myna.generate.engine import generate

        return generate(model, ids, **options)


sys.modules[__name__].__class__ = _CallableRoom
