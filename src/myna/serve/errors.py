"""What the API answers when it can't do what was asked, in the shape that OpenAI's clients read."""

import sys
import traceback
from typing import Any


class ApiError(Exception):
    """An answer with a status of 400 or more.

    Attributes:
        status: HTTP's.
        param: the field at fault, where it is one.
        code: a word for programs, such as "model_not_found".
        headers: to send besides.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON of the answer.

        >>> ApiError(429, "busy").body()["error"]["type"]
        'rate_limit_error'
        """
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def tell_defect(error: BaseException) -> None:
    """Prints where a defect of ours showed: its kind and the lines of code. A message may hold what a user typed."""
    lines = "".join(traceback.format_tb(error.__traceback__))
    print(f"{lines}{type(error).__name__}: a defect of the server", file=sys.stderr, flush=True)
