"""The server: OpenAI's completions and chat API, a tokenizer's view, the runs of a folder, and the page."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from myna.errors import MynaError
from myna.serve.answers import Json
from myna.serve.chat import read_chat_request
from myna.serve.completions import read_request
from myna.serve.errors import ApiError, tell_defect
from myna.serve.limits import Guard, Limits
from myna.serve.measures import Measures
from myna.serve.models import Models
from myna.serve.openapi import openapi
from myna.serve.texts import Request as TextRequest
from myna.serve.texts import Texts, TextStream, whole
from myna.serve.tokens import detokenize, merges, tokenize
from myna.version import version

T = TypeVar("T")

PAGE = Path(__file__).parent / "page"
# The page runs its own scripts and styles alone, asks its own server alone, and stands in no other page's frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
SHORT_BYTES = 16 << 10  # of a request that takes no millisecond to read
OPEN_PATHS = frozenset({"/", "/health"})  # and the page's files: they need no key


class Server:
    """The answers of one server.

    Attributes:
        draining: no new requests are taken.
        stop: begins to drain, and ends the server after that. To be called in its event loop.
    """

    stop: Callable[[], None]

    def __init__(self, models: Models, limits: Limits, measures: Measures):
        self.models, self.limits, self.measures = models, limits, measures
        self.draining = False

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        return await self._texts(request, lambda body: read_request(body, self.models, self.limits))

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        return await self._texts(request, lambda body: read_chat_request(body, self.models, self.limits))

    async def _texts(self, request: Request, read: Callable[[Any], TextRequest]) -> Response:
        asked = await self._beside(request, read)
        if self.draining:
            raise ApiError(503, "the server is stopping; ask another one", headers={"Connection": "close"})
        texts = Texts(asked, self.limits)
        if asked.asked.stream:
            return TextStream(texts)
        try:
            return Json(await unless_gone(request, whole(texts)))
        finally:
            texts.close()

    async def tokenize(self, request: Request) -> Response:
        """POST /v1/tokenize."""
        return await self._beside(request, lambda body: Json(tokenize(body, self.models, self.limits)))

    async def detokenize(self, request: Request) -> Response:
        """POST /v1/detokenize."""
        return await self._beside(request, lambda body: Json(detokenize(body, self.models)))

    async def merges(self, request: Request) -> Response:
        """POST /v1/merges."""
        return await self._beside(request, lambda body: Json(merges(body, self.models, self.limits)))

    async def _beside(self, request: Request, work: Callable[[Any], T]) -> T:
        """What work makes of a request's JSON. A long one is a thread's, so that others are answered meanwhile."""
        data = await self.body(request)
        if len(data) <= SHORT_BYTES:
            return work(read_json(data))
        return await run_in_threadpool(lambda: work(read_json(data)))

    async def list_models(self, request: Request) -> Response:
        """GET /v1/models, and one of them."""
        name = request.path_params.get("name")
        if name is not None:
            return Json(self.models.named(name).about())
        return Json({"object": "list", "data": [one.about() for one in self.models]})

    async def health(self, request: Request) -> Response:
        """GET /health."""
        alive = all(one.worker.is_alive() for one in self.models)
        status = "stopping" if self.draining else "ok" if alive else "a model's thread has ended"
        return Json({"status": status}, status_code=200 if status == "ok" else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics, in Prometheus's text format."""
        return Response(self.measures.text(), media_type=self.measures.media_type)

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return Json(openapi(self.limits, version()))

    async def body(self, request: Request) -> bytearray:
        """The bytes of a request.

        Raises:
            ApiError: 413 or 408: they are too many or too slow.
        """
        most, data = self.limits.max_body_bytes, bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in request.stream():
                    data += part
                    if len(data) > most:
                        raise ApiError(413, f"the request has more than {most} bytes; shorten it")
        except TimeoutError as error:
            raise ApiError(408, "the request's bytes did not come in time") from error
        return data


def read_json(data: bytearray) -> Any:
    """The JSON of a request.

    Raises:
        ApiError: 400: it is none.
    """
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is no JSON: {error}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


async def unless_gone(request: Request, answer: Awaitable[Any]) -> Any:
    """The answer, unless the client hangs up before.

    Raises:
        ClientDisconnect: it did.
    """
    work = asyncio.ensure_future(answer)

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watch = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        for task in (work, watch):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ApiError):
                await task


class Checked:
    """Around the app: who asks, what every answer carries, and errors as JSON.

    Args:
        paths: those that are counted by themselves.
    """

    def __init__(self, app: ASGIApp, guard: Guard, measures: Measures, paths: Collection[str]):
        self.app, self.guard, self.measures, self.paths = app, guard, measures, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: dict[str, str] = {}
        for raw_key, raw_value in scope["headers"]:  # one that is sent twice is no name and no key of ours
            key, value = raw_key.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        path, begun = scope["path"], False

        async def send_safely(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                # Paths that a stranger makes up are one.
                self.measures.answered(path if path in self.paths else "other", message["status"])
                message["headers"] = [
                    *message.get("headers", []),
                    *((key.encode(), value.encode()) for key, value in SAFE_HEADERS.items()),
                ]
                if path == "/" or path.startswith("/page/"):  # or a browser mixes modules of two versions
                    message["headers"].append((b"cache-control", b"no-cache"))
            await send(message)

        try:
            self.guard.check_names(headers.get("host"), headers.get("origin"))
            if path not in OPEN_PATHS and not path.startswith("/page/"):
                self.guard.check_key(headers.get("authorization"))
            await self.app(scope, receive, send_safely)
        except ClientDisconnect:
            pass
        except ApiError as error:
            if not begun:
                answer = Json(error.body(), status_code=error.status, headers=error.headers)
                await answer(scope, receive, send_safely)
        except Exception as error:  # answered already, by `on_defect`
            tell_defect(error)


async def on_api_error(request: Request, error: Exception) -> Response:
    """OpenAI's error shape."""
    assert isinstance(error, ApiError)
    return Json(error.body(), status_code=error.status, headers=error.headers)


async def on_our_error(request: Request, error: Exception) -> Response:
    """An error of another room, such as a run that can't be read: what the person asked for can't be had."""
    return Json(ApiError(400, str(error)).body(), status_code=400)


async def on_defect(request: Request, error: Exception) -> Response:
    """Whatever else went wrong."""
    return Json(ApiError(500, "a defect of the server; its log says more").body(), status_code=500)


async def on_http_error(request: Request, error: Exception) -> Response:
    """A path or a method that isn't there."""
    status, detail = getattr(error, "status_code", 500), getattr(error, "detail", "")
    headers = getattr(error, "headers", None)
    return Json(ApiError(status, f"{request.url.path}: {detail}").body(), status_code=status, headers=headers)


def build_app(
    models: Models, limits: Limits, guard: Guard, measures: Measures, more: list[Route | Mount]
) -> tuple[ASGIApp, Server]:
    """The ASGI app, and the server behind it.

    Args:
        more: routes besides, such as those of the runs.
    """
    from starlette.exceptions import HTTPException

    server = Server(models, limits, measures)
    routes: list[Route | Mount] = [
        Route("/v1/completions", server.completions, methods=["POST"]),
        Route("/v1/chat/completions", server.chat, methods=["POST"]),
        Route("/v1/models", server.list_models),
        Route("/v1/models/{name:path}", server.list_models),
        Route("/v1/tokenize", server.tokenize, methods=["POST"]),
        Route("/v1/detokenize", server.detokenize, methods=["POST"]),
        Route("/v1/merges", server.merges, methods=["POST"]),
        Route("/health", server.health),
        Route("/metrics", server.metrics),
        Route("/openapi.json", server.openapi),
        *more,
        # The charts, and what else pages in one file have too, lie with those: see `myna.html`.
        Mount("/page", StaticFiles(directory=PAGE, packages=[("myna.html", "assets")])),
        Route("/", page),
    ]
    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        ApiError: on_api_error,
        MynaError: on_our_error,
        HTTPException: on_http_error,
        Exception: on_defect,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    paths = frozenset(route.path for route in routes if isinstance(route, Route))
    return Checked(app, guard, measures, paths), server


async def page(request: Request) -> Response:
    """The page itself."""
    return Response((PAGE / "index.html").read_bytes(), media_type="text/html")
