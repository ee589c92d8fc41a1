"""The server: OpenAI's completions API, a tokenizer's view, the runs of a folder, and the page."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from myna.errors import MynaError
from myna.serve.completions import Texts, stream, whole
from myna.serve.errors import ApiError
from myna.serve.limits import Guard, Limits
from myna.serve.measures import Measures
from myna.serve.models import Models
from myna.serve.openapi import openapi
from myna.serve.protocol import read_completion
from myna.serve.tokens import detokenize, merges, tokenize

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
        if self.draining:
            raise ApiError(503, "the server is stopping; ask another one", headers={"Connection": "close"})
        asked = read_completion(await self.body(request))
        texts = Texts(self.models.named(asked.model), asked, self.limits)
        if asked.stream:
            return StreamingResponse(
                closing(texts, stream(texts)),
                media_type="text/event-stream",
                headers={"cache-control": "no-store", "x-accel-buffering": "no"},
            )
        try:
            return JSONResponse(await unless_gone(request, whole(texts)))
        finally:
            texts.close()

    async def tokenize(self, request: Request) -> Response:
        """POST /v1/tokenize."""
        return await self._beside(tokenize, request)

    async def detokenize(self, request: Request) -> Response:
        """POST /v1/detokenize."""
        return await self._beside(detokenize, request)

    async def merges(self, request: Request) -> Response:
        """POST /v1/merges."""
        return await self._beside(merges, request)

    async def _beside(self, work: Callable[[Any, Models], dict[str, Any]], request: Request) -> Response:
        """A tokenizer's work on a long text takes a while: others are answered meanwhile."""
        return JSONResponse(await run_in_threadpool(work, await self.body(request), self.models))

    async def list_models(self, request: Request) -> Response:
        """GET /v1/models, and one of them."""
        name = request.path_params.get("name")
        if name is not None:
            return JSONResponse(self.models.named(name).about())
        return JSONResponse({"object": "list", "data": [one.about() for one in self.models]})

    async def health(self, request: Request) -> Response:
        """GET /health."""
        alive = all(one.worker.is_alive() for one in self.models)
        status = "stopping" if self.draining else "ok" if alive else "a model's thread has ended"
        return JSONResponse({"status": status}, status_code=200 if status == "ok" else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics, in Prometheus's text format."""
        return Response(self.measures.text(), media_type=self.measures.media_type)

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return JSONResponse(openapi(self.limits, version("myna")))

    async def body(self, request: Request) -> Any:
        """The JSON of a request.

        Raises:
            ApiError: 413, 408 or 400: it is too large, too slow, or no JSON.
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
        try:
            return json.loads(data, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"the body is no JSON: {error}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


async def closing(texts: Texts, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The parts; when they end, or the client hangs up, nothing is written any more."""
    try:
        async for part in parts:
            yield part
    finally:
        texts.close()


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
    """Around the app: who asks, what every answer carries, and errors as JSON."""

    def __init__(self, app: ASGIApp, guard: Guard, measures: Measures):
        self.app, self.guard, self.measures = app, guard, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        path, begun = scope["path"], False

        async def send_safely(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self.measures.answered(path, message["status"])
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
                answer = JSONResponse(error.body(), status_code=error.status, headers=error.headers)
                await answer(scope, receive, send_safely)


async def on_api_error(request: Request, error: Exception) -> Response:
    """OpenAI's error shape."""
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


async def on_our_error(request: Request, error: Exception) -> Response:
    """An error of another room, such as a run that can't be read: what the person asked for can't be had."""
    return JSONResponse(ApiError(400, str(error)).body(), status_code=400)


async def on_http_error(request: Request, error: Exception) -> Response:
    """A path or a method that isn't there."""
    status, detail = getattr(error, "status_code", 500), getattr(error, "detail", "")
    headers = getattr(error, "headers", None)
    return JSONResponse(
        ApiError(status, f"{request.url.path}: {detail}").body(), status_code=status, headers=headers
    )


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
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Checked(app, guard, measures), server


async def page(request: Request) -> Response:
    """The page itself."""
    return Response((PAGE / "index.html").read_bytes(), media_type="text/html")
