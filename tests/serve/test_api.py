"""The completions API against a real server on loopback: OpenAI's client, plain requests, clients that hang up."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myna.generate.engine import generate
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.text.chat import ROLES, with_chat_tokens
from myna.text.tokenizer import Tokenizer

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from myna.serve.app import SHORT_BYTES, Server, build_app
from myna.serve.completions import read_request
from myna.serve.limits import Guard, Limits
from myna.serve.measures import Measures
from myna.serve.models import Models, Served, serve_model, unique_names
from myna.serve.openapi import openapi
from myna.serve.run import bound_socket, serve
from myna.serve.runs import run_routes
from myna.serve.texts import Texts, TextStream

TOKENIZER = Tokenizer.bytes()


def small_model(block_size: int = 64, vocab_size: int = 257) -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=block_size, vocab_size=vocab_size))
    with torch.no_grad():  # logits well apart, so that texts don't hang on the last bit of a sum
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    port: int
    server: Server
    served: Served
    loop: asyncio.AbstractEventLoop

    def stop(self) -> None:
        """As SIGTERM does."""
        self.loop.call_soon_threadsafe(self.server.stop)

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, dict, dict]:
        """Status, JSON and headers of one request; a body makes it a POST."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            sent = {"Host": f"127.0.0.1:{self.port}"} | {k.replace("_", "-"): v for k, v in headers.items()}
            connection.request("GET" if body is None else "POST", path, data, sent)
            answer = connection.getresponse()
            raw = answer.read()
            found = json.loads(raw) if "json" in answer.headers.get("content-type", "") else {"raw": raw}
            return answer.status, found, dict(answer.headers)
        finally:
            connection.close()

    def complete(self, **fields: object) -> dict:
        """The answer to a request that must be fine."""
        status, found, _ = self.ask("/v1/completions", fields)
        assert status == 200, found
        return found


DEFAULTS = Limits()


@contextlib.contextmanager
def running(
    limits: Limits = DEFAULTS,
    key: str | None = None,
    model: GPT | None = None,
    tokenizer: Tokenizer = TOKENIZER,
) -> Iterator[Running]:
    model = model or small_model(vocab_size=tokenizer.n_vocab)
    served = serve_model("small", model, tokenizer, "fp32", limits.max_texts, limits.prefix_bytes)
    models, measures = Models([served]), Measures()
    measures.watch(models)
    app, server = build_app(models, limits, Guard(key, []), measures, [])
    listening, ready = bound_socket("127.0.0.1", 0), threading.Event()
    port = listening.getsockname()[1]
    loops: list[asyncio.AbstractEventLoop] = []

    def work() -> None:
        serve(
            app,
            server,
            models,
            limits,
            listening,
            log_requests=False,
            on_ready=lambda: (loops.append(asyncio.get_event_loop()), ready.set()),
        )

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(30)
    try:
        yield Running(port, server, served, loops[0])
    finally:
        loops[0].call_soon_threadsafe(server.stop)
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    with running() as found:
        yield found


def wanted(prompt: str, max_tokens: int, **options: object) -> str:
    ids = [TOKENIZER.encode(prompt) or [TOKENIZER.eot]]
    return TOKENIZER.decode(
        generate(small_model(), ids, max_tokens=max_tokens, stop_ids=[TOKENIZER.eot], **options)[0]
    )


def test_the_official_client_streaming_and_not(one):
    from openai import BadRequestError, NotFoundError, OpenAI

    with OpenAI(base_url=f"http://127.0.0.1:{one.port}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["small"]
        asked = {"model": "small", "prompt": "Hello", "max_tokens": 12, "seed": 1}
        whole = client.completions.create(**asked)
        assert whole.choices[0].text == wanted("Hello", 12, seed=1)
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (5, 12)
        chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.choices[0].text
        assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "length"
        assert chunks[-1].usage == whole.usage
        with pytest.raises(BadRequestError, match="small has no tokens to fill in the middle"):
            client.completions.create(**asked, suffix="end")
        with pytest.raises(NotFoundError, match="there is no model 'large'; there are: small"):
            client.completions.create(model="large", prompt="x")


def test_several_prompts_n_echo_and_stop(one):
    found = one.complete(prompt=["ab", "c"], n=2, max_tokens=9, seed=4, echo=True)
    rows = generate(small_model(), [TOKENIZER.encode("ab")] * 2, max_tokens=9, seed=4, stop_ids=[256])
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in found["choices"][:2]] == [
        "ab" + TOKENIZER.decode(row) for row in rows
    ]
    assert all(choice["text"].startswith("c") for choice in found["choices"][2:])
    assert found["usage"]["prompt_tokens"] == 3
    text = wanted("ab", 30, seed=4)
    cut = one.complete(prompt=[97, 98], max_tokens=30, seed=4, stop=[text[6:8], "never"])["choices"][0]
    assert (cut["text"], cut["finish_reason"]) == (text.split(text[6:8])[0], "stop")
    assert one.complete(prompt="", max_tokens=5, seed=4)["choices"][0]["text"] == wanted("", 5, seed=4)
    assert one.complete(max_tokens=5, seed=4, prompt=None, temperature=1e-9)["choices"][0]["text"] == wanted(
        "", 5, temperature=0
    )


def test_log_probabilities_of_the_text_and_of_an_echoed_prompt(one):
    asked = {"prompt": "aé", "max_tokens": 4, "temperature": 0, "logprobs": 2}
    logs = one.complete(**asked)["choices"][0]["logprobs"]
    with_echo = one.complete(**asked, echo=True)["choices"][0]
    both = with_echo["logprobs"]
    assert both["tokens"][:3] == ["a", "bytes:\\xc3", "bytes:\\xa9"]
    assert both["token_logprobs"][0] is both["top_logprobs"][0] is None
    assert both["tokens"][3:] == logs["tokens"]
    assert both["token_logprobs"][3:] == pytest.approx(logs["token_logprobs"], abs=1e-5)
    assert all(
        value == max(top.values())
        for value, top in zip(logs["token_logprobs"], logs["top_logprobs"], strict=True)
    )
    assert both["text_offset"][:3] == [0, 1, 1]
    assert logs["text_offset"][0] == 2  # behind the prompt, as OpenAI counts
    assert both["text_offset"][3:] == logs["text_offset"]
    scored = one.complete(prompt="hello", max_tokens=0, echo=True, logprobs=0)["choices"][0]
    assert (scored["text"], scored["finish_reason"]) == ("hello", "length")
    ids = torch.tensor([TOKENIZER.encode("hello")])
    with torch.no_grad():
        expected = small_model()(ids)[0].log_softmax(-1)[range(4), ids[0, 1:]].tolist()
    assert scored["logprobs"]["token_logprobs"] == [
        None,
        *(pytest.approx(value, abs=1e-5) for value in expected),
    ]


BAD = [
    ([], None, "no JSON object"),
    (b"{", None, "no JSON"),
    (b'{"prompt": "\xff"}', None, "no JSON"),
    (b"[" * 100_000, None, "no JSON"),
    (b'{"prompt": "x", "temperature": NaN}', None, "NaN is no JSON number"),
    ({"temperature": -1}, "temperature", "temperature is -1"),
    ({"temperature": "hot"}, "temperature", "give a number"),
    ({"temperature": 10**400}, "temperature", "temperature is further from 0 than any float"),
    ({"temperature": 1e999}, None, "Infinity is no JSON number"),
    ({"top_k": 0}, "top_k", "top-k is 0"),
    ({"top_p": 0}, "top_p", "top-p is 0"),
    ({"top_p": 1.1}, "top_p", "top-p is 1.1"),
    ({"min_p": 2}, "min_p", "min-p is 2"),
    ({"repetition_penalty": 0}, "repetition_penalty", "repetition-penalty is 0"),
    ({"logprobs": 6}, "logprobs", "logprobs is 6"),
    ({"logprobs": True}, "logprobs", "logprobs is True"),
    ({"max_tokens": -1}, "max_tokens", "max tokens is -1"),
    ({"max_tokens": 1.5}, "max_tokens", "give a whole number"),
    ({"max_tokens": 100_000}, "max_tokens", "this server gives 4096 at most"),
    ({"n": 0}, "n", "n is 0"),
    ({"n": 33}, "n", "33 texts asked for at once"),
    ({"prompt": ["x"] * 20, "n": 2}, "n", "40 texts asked for at once"),
    ({"prompt": "x" * 65}, "prompt", "65 tokens, and the model's context 64"),
    ({"prompt": {"a": 1}}, "prompt", "prompt is no text"),
    ({"prompt": []}, "prompt", "prompt is no text"),
    ({"prompt": ["x", 3]}, "prompt", "prompt is no text"),
    ({"prompt": [1, 257]}, "prompt", "id 257 is outside the vocabulary"),
    ({"prompt": [[1], [-1]]}, "prompt", "id -1 is outside the vocabulary"),
    ({"prompt": [10**30]}, "prompt", "outside the vocabulary"),
    ({"prompt": "\ud800"}, "prompt", "the prompt"),
    ({"stop": ""}, "stop", "a stop text is empty"),
    ({"stop": [1]}, "stop", "give a list of texts"),
    ({"stop": ["x"] * 17}, "stop", "stop is no text or list"),
    ({"seed": -1}, "seed", "seed is -1"),
    ({"echo": "yes"}, "echo", "give true or false"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "for stream: true alone"),
    ({"best_of": 2}, "best_of", "best_of is not supported"),
    ({"presence_penalty": 0.5}, "presence_penalty", "not supported"),
    ({"logit_bias": {"5": 100}}, "logit_bias", "not supported"),
    ({"suffix": "x"}, "suffix", "train a model that can: myna train RECIPE --data DATA --fim-rate 0.5"),
    ({"suffix": 3}, "suffix", "suffix is no text"),
    ({"presence_penalty": False}, "presence_penalty", "not supported"),
    ({"messages": []}, "messages", "there is no field 'messages'"),
    ({"\ud800": 1}, "\ud800", "there is no field"),
    ({"stop_token_ids": [1, 257]}, "stop_token_ids", "id 257 is outside the vocabulary"),
    ({"stop_token_ids": [-1]}, "stop_token_ids", "id -1 is outside the vocabulary"),
    ({"model": 3}, "model", "model is no text"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param", "words"), BAD)
def test_what_cannot_be_is_refused_in_openais_shape(one, body, param, words):
    status, found, _ = one.ask("/v1/completions", body)
    assert status == 400
    error = found["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]


def test_fields_that_change_nothing_are_taken(one):
    plain = one.complete(prompt="x", max_tokens=5, seed=2)["choices"]
    neutral = {
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "best_of": 1,
        "logit_bias": {},
        "suffix": None,
        "user": "me",
    }
    assert one.complete(prompt="x", max_tokens=5, seed=2, **neutral, n=None, stop=None)["choices"] == plain


def test_a_prompt_that_is_too_long_can_be_truncated_and_the_answer_says_so(one):
    long = "".join(chr(97 + n % 26) for n in range(100))
    found = one.complete(prompt=long, max_tokens=3, seed=1, truncate=True)
    assert found["truncated"] == [True]
    assert found["usage"]["prompt_tokens"] == 64
    assert found["choices"][0]["text"] == wanted(long[-64:], 1, seed=1)
    assert found["choices"][0]["finish_reason"] == "length"  # the window is full after one
    slid = one.complete(prompt=long, max_tokens=9, seed=1, truncate=True, slide=True)
    assert slid["choices"][0]["text"] == wanted(long[-64:], 9, seed=1)
    assert one.complete(prompt="x", max_tokens=1, truncate=True)["truncated"] == [False]


def test_other_paths_and_methods(one):
    assert one.ask("/nothing")[0] == 404
    status, found, headers = one.ask("/v1/completions")
    assert (status, found["error"]["type"]) == (405, "invalid_request_error")
    assert "POST" in headers["allow"]
    assert one.ask("/health")[:2] == (200, {"status": "ok"})
    assert one.ask("/v1/models/small")[1]["context_length"] == 64
    assert one.ask("/v1/models/small")[1]["can_chat"] is False
    assert one.ask("/v1/models/large")[0] == 404
    assert b'myna_generated_tokens_total{model="small"}' in one.ask("/metrics")[1]["raw"]
    assert "script-src 'self'" in one.ask("/")[2]["content-security-policy"]


def test_the_description_names_every_path():
    app, _ = build_app(Models([]), DEFAULTS, Guard(None, []), Measures(), [*run_routes(None)])
    served = {path.replace(":path", "") for path in app.paths} - {"/", "/openapi.json"}
    assert set(openapi(DEFAULTS, "1")["paths"]) == served


def test_tokens_and_back(one):
    found = one.ask("/v1/tokenize", {"text": "a🙂"})[1]
    assert found["count"] == 5
    assert [token["bytes"] for token in found["tokens"]] == [[byte] for byte in "a🙂".encode()]
    assert [token["of"] for token in found["tokens"]] == ["", "🙂", "🙂", "🙂", "🙂"]
    ids = [token["id"] for token in found["tokens"]]
    assert one.ask("/v1/detokenize", {"tokens": ids})[1] == {"text": "a🙂"}
    for path, body in [
        ("/v1/tokenize", {}), ("/v1/tokenize", {"text": 3}), ("/v1/tokenize", []), ("/v1/tokenize", {"text": "\ud800"}),
        ("/v1/detokenize", {"tokens": "x"}), ("/v1/detokenize", {"tokens": [300]}),
        ("/v1/detokenize", {"tokens": [-1]}), ("/v1/merges", {"text": None}),
    ]:  # fmt: skip
        assert one.ask(path, body)[0] == 400, (path, body)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_foreign_names_are_refused(one, headers):
    for path, body in (("/health", None), ("/", None), ("/v1/completions", {"prompt": "x", "max_tokens": 1})):
        status, found, _ = one.ask(path, body, **headers)
        assert (status, found["error"]["type"]) == (403, "permission_error")
    twice = f"Origin: http://evil.example\r\nOrigin: http://127.0.0.1:{one.port}"
    with silent(
        one, f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{one.port}\r\n{twice}\r\n\r\n".encode()
    ) as sent:
        assert b"403 Forbidden" in sent.recv(1000)
    own = {"Host": f"localhost:{one.port}", "Origin": f"http://localhost:{one.port}"}
    assert one.ask("/health", **own)[0] == 200


def test_a_key_is_asked_for():
    with running(key="s3cret-ключ") as locked:
        for given in (None, "", "Bearer", "Bearer wrong", "Basic s3cret", "Bearer s3cret"):
            headers = {} if given is None else {"Authorization": given}
            status, found, answered = locked.ask("/v1/models", **headers)
            assert (status, found["error"]["code"]) == (401, "invalid_api_key")
            assert answered["www-authenticate"] == "Bearer"
        right = "Bearer s3cret-ключ".encode().decode("latin-1")
        assert locked.ask("/v1/models", Authorization=right)[0] == 200
        assert locked.ask("/health")[0] == locked.ask("/")[0] == 200
        assert locked.ask("/metrics")[0] == 401


def test_many_clients_each_get_what_they_get_alone(one):
    asked = [
        {
            "prompt": chr(97 + n % 26) * (1 + n % 9),
            "max_tokens": 5 + n % 20,
            "seed": n,
            "temperature": n % 3 / 2,
        }
        for n in range(40)
    ]
    alone = [one.complete(**body)["choices"][0] for body in asked]
    together: list[dict | None] = [None] * len(asked)

    def client(n: int) -> None:
        together[n] = one.complete(**asked[n])["choices"][0]

    threads = [threading.Thread(target=client, args=(n,)) for n in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone
    assert one.served.worker.n_running == 0


def raw_request(one: Running, body: dict) -> socket.socket:
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", one.port), timeout=30)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{one.port}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    connection.sendall(head.encode() + data)
    return connection


class Gate:
    """A model whose steps a test lets through, one by one: so it is known which step a thing happened in."""

    def __init__(self) -> None:
        self.model = small_model(block_size=512)
        self.free, self.begun = threading.Semaphore(0), threading.Semaphore(0)
        self.open = False
        hidden = self.model.hidden

        def gated(ids, cache=None):
            if not self.open:
                self.begun.release()
                assert self.free.acquire(timeout=30)
            return hidden(ids, cache)

        self.model.hidden = gated


def until(condition) -> None:
    """Waits for what must become true; a minute at most, on however slow a machine."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("stream", [True, False])
def test_who_hangs_up_has_left_before_the_next_step(stream):
    gate = Gate()
    with running(model=gate.model) as one:
        worker = one.served.worker
        for _ in range(50):
            connection = raw_request(
                one, {"prompt": "x", "max_tokens": 400, "seed": 1, "slide": True, "stream": stream}
            )
            assert gate.begun.acquire(timeout=30)
            gate.free.release()
            assert gate.begun.acquire(timeout=30)  # inside its second step
            connection.close()
            until(lambda: worker._orders.qsize() > 0)  # the server has noticed
            gate.free.release()
            until(lambda: worker.n_running == 0)
            assert not gate.begun.acquire(blocking=False)  # there was no third step
        gate.open = True
        assert one.complete(prompt="ab", max_tokens=3, seed=1)["usage"]["completion_tokens"] == 3


def test_a_stream_sends_its_first_words_while_the_rest_is_written():
    gate = Gate()
    with running(model=gate.model) as one:
        connection = raw_request(one, {"prompt": "x", "max_tokens": 40, "seed": 1, "stream": True})
        with connection, connection.makefile("rb") as lines:
            for _ in range(8):  # enough bytes for a whole character
                assert gate.begun.acquire(timeout=30)
                gate.free.release()
            assert gate.begun.acquire(timeout=30)  # the model stands in its ninth step
            while not (line := lines.readline()).startswith(b"data: "):
                assert line
            first = json.loads(line[6:])["choices"][0]
            assert first["text"]
            assert first["finish_reason"] is None
            gate.open = True
            gate.free.release()
            rest = lines.read()
        assert rest.count(b"data: ") >= 2
        assert b"data: [DONE]" in rest


def test_a_full_queue_answers_429_and_those_before_it_are_served():
    gate = Gate()
    with running(Limits(max_texts=1, max_waiting=2, max_choices=1), model=gate.model) as one:
        answers: list[dict] = []
        body = {"prompt": "x", "max_tokens": 2, "seed": 1}
        threads = []
        for n in range(3):
            threads.append(threading.Thread(target=lambda: answers.append(one.complete(**body))))
            threads[-1].start()
            if n == 0:
                assert gate.begun.acquire(timeout=30)
            else:
                until(lambda n=n: one.served.worker.n_waiting == n)
        status, found, headers = one.ask("/v1/completions", body)
        assert (status, found["error"]["type"], found["error"]["code"]) == (
            429,
            "rate_limit_error",
            "queue_full",
        )
        assert int(headers["retry-after"]) >= 1
        assert one.ask("/health")[0] == 200  # while the model is in the middle of a step
        gate.open = True
        gate.free.release()
        for thread in threads:
            thread.join(60)
        assert len({answer["choices"][0]["text"] for answer in answers}) == 1
        assert len(answers) == 3


def test_a_silent_stream_says_that_it_lives_and_a_late_one_is_cut():
    gate = Gate()
    with running(Limits(keep_alive_seconds=0.05, max_seconds=1.0), model=gate.model) as one:
        connection = raw_request(one, {"prompt": "x", "max_tokens": 400, "stream": True, "slide": True})
        with connection, connection.makefile("rb") as lines:
            assert gate.begun.acquire(timeout=30)
            while not (line := lines.readline()).startswith(b":"):
                assert line
            gate.open = True
            time.sleep(1.0)
            gate.free.release()
            events = []
            while (line := lines.readline()).strip() != b"data: [DONE]":
                if line.startswith(b"data: "):
                    events.append(json.loads(line[6:]))
        assert events[-1]["choices"][0]["finish_reason"] == "length"
        assert len(events) < 300


def test_an_error_of_the_model_is_told_and_the_next_request_is_served(capsys):
    model = small_model()
    with running(model=model) as one:
        fine = one.complete(prompt="x", max_tokens=5, seed=1)["choices"]
        hidden, model.hidden = model.hidden, lambda ids, cache=None: 1 / 0
        status, found, _ = one.ask("/v1/completions", {"prompt": "x", "max_tokens": 5})
        assert (status, found["error"]["type"]) == (500, "server_error")
        stream = one.ask("/v1/completions", {"prompt": "x", "max_tokens": 5, "stream": True})[1]["raw"]
        assert b'"server_error"' in stream
        model.hidden = hidden
        assert one.complete(prompt="x", max_tokens=5, seed=1)["choices"] == fine
    assert "ZeroDivisionError" in capsys.readouterr().err  # for who runs the server


def test_a_defect_of_the_worker_is_told_and_its_thread_goes_on(monkeypatch, capsys):
    with running() as one:
        fine = one.complete(prompt="x", max_tokens=5, seed=1)["choices"]
        with monkeypatch.context() as patch:
            patch.setattr(one.served.worker, "_seat", lambda: 1 / 0)
            for _ in range(2):
                assert one.ask("/v1/completions", {"prompt": "x", "max_tokens": 5})[0] == 500
        assert one.complete(prompt="x", max_tokens=5, seed=1)["choices"] == fine
        assert one.ask("/health")[0] == 200
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("stream", [False, True])
def test_a_score_that_is_not_finite_is_an_error(stream):
    model = small_model()
    with torch.no_grad():
        model.wte.weight[65] = float("nan")
        model.wte.weight[65, 1:] = 0.0
    with running(model=model) as one:
        body = {"prompt": "xA", "max_tokens": 0, "echo": True, "logprobs": 1, "stream": stream}
        status, found, _ = one.ask("/v1/completions", body)
        assert status == (200 if stream else 500)
        assert "log-probability of the prompt is not finite" in str(found)
        assert one.served.worker.n_running == 0


def test_who_hangs_up_before_the_first_line_of_a_stream_leaves_no_text_behind(one):
    """Starlette then ends the answer without having begun the generator."""

    async def hung_up() -> Texts:
        body = {"prompt": "x", "max_tokens": 400, "slide": True, "stream": True}
        texts = Texts(read_request(body, one.server.models, DEFAULTS), DEFAULTS)

        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            await asyncio.sleep(0)

        await TextStream(texts)({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
        return texts

    assert asyncio.run(hung_up()).job.cancelled
    until(lambda: one.served.worker.n_running == 0)


def test_bodies_have_a_cap():
    with running(Limits(max_body_bytes=100, body_seconds=0.2)) as one:
        assert one.ask("/v1/completions", {"prompt": "x" * 200})[0] == 413
        connection = socket.create_connection(("127.0.0.1", one.port), timeout=30)
        with connection:
            connection.sendall(
                f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{one.port}\r\nContent-Length: 9\r\n\r\n{{".encode()
            )
            assert b"408" in connection.recv(100)
        assert one.ask("/health")[0] == 200


def test_a_hundred_slow_sockets_hold_up_nobody(one):
    sockets = [socket.create_connection(("127.0.0.1", one.port), timeout=30) for _ in range(100)]
    try:
        for n, connection in enumerate(sockets):
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x"[: 10 + n % 30])
        assert one.complete(prompt="x", max_tokens=3, seed=1)["usage"]["completion_tokens"] == 3
    finally:
        for connection in sockets:
            connection.close()


def silent(one: Running, said: bytes = b"POST /v1/comp") -> socket.socket:
    """A connection whose request never becomes whole."""
    connection = socket.create_connection(("127.0.0.1", one.port), timeout=30)
    connection.sendall(said)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes it; waits for that, and reads what still comes of an answer."""
    try:
        while connection.recv(1000):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def test_beyond_the_cap_who_is_silent_longest_is_closed_and_who_is_served_is_not():
    gate = Gate()
    with running(Limits(max_connections=5), model=gate.model) as one:
        served = raw_request(one, {"prompt": "x", "max_tokens": 1, "seed": 1})
        assert gate.begun.acquire(timeout=30)
        sockets = []
        try:
            for n in range(12):
                sockets.append(silent(one))
                if n >= 4:
                    assert is_closed(sockets[n - 4])
            gate.open = True
            gate.free.release()
            assert served.recv(100).startswith(b"HTTP/1.1 200")
            assert one.ask("/health")[0] == 200
        finally:
            for connection in (served, *sockets):
                connection.close()


def test_a_request_that_never_becomes_whole_is_closed_in_time():
    with running(Limits(body_seconds=0.2)) as one:
        for said in (b"", b"GET /hea"):
            with silent(one, said) as connection:
                assert is_closed(connection)
        with silent(
            one, f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{one.port}\r\n\r\n".encode()
        ) as connection:
            assert b"200 OK" in connection.recv(1000)
            connection.sendall(b"GET /hea")  # its next request
            assert is_closed(connection)
        assert one.ask("/health")[0] == 200


def test_a_stop_takes_nothing_new_and_lets_running_texts_end():
    gate = Gate()
    with running(model=gate.model) as one:
        answers: list[dict] = []
        thread = threading.Thread(
            target=lambda: answers.append(one.complete(prompt="x", max_tokens=3, seed=1))
        )
        thread.start()
        assert gate.begun.acquire(timeout=30)
        one.server.draining = True
        status, found, _ = one.ask("/v1/completions", {"prompt": "x"})
        assert (status, found["error"]["type"]) == (503, "server_error")
        gate.open = True
        gate.free.release()
        thread.join(60)
        assert answers[0]["usage"]["completion_tokens"] == 3


def events_of(lines) -> Iterator[dict]:
    """The events of a stream, up to the last."""
    while (line := lines.readline()).strip() != b"data: [DONE]":
        assert line
        if line.startswith(b"data: "):
            yield json.loads(line[len("data: ") :])


def test_what_runs_at_the_end_of_the_drain_ends_as_it_is():
    """The stream is told its end, and a text that is asked for whole comes as far as it is."""
    gate = Gate()
    with running(Limits(drain_seconds=0.0), model=gate.model) as one:
        body = {"prompt": "x", "max_tokens": 400, "slide": True, "seed": 1}
        connection, answers = raw_request(one, body | {"stream": True}), []
        with connection, connection.makefile("rb") as lines:
            events = events_of(lines)
            assert gate.begun.acquire(timeout=30)
            gate.free.release()
            next(events)
            assert gate.begun.acquire(timeout=30)  # else the next request could be in time for this step
            thread = threading.Thread(target=lambda: answers.append(one.complete(**body)))
            thread.start()
            until(lambda: one.served.worker.n_waiting == 1)
            gate.free.release()
            until(lambda: one.served.worker.n_running == 2)
            assert gate.begun.acquire(timeout=30)
            one.stop()
            until(lambda: one.served.worker._orders.qsize() == 1)
            gate.open = True
            gate.free.release()
            assert [*events][-1]["choices"][0]["finish_reason"] == "length"
        thread.join(30)
    assert answers[0]["choices"][0]["finish_reason"] == "length"
    assert 1 <= answers[0]["usage"]["completion_tokens"] <= 3


def test_paths_that_a_stranger_makes_up_are_counted_as_one():
    with running(key="key") as one:
        for n in range(5):
            assert one.ask(f"/v1/{n}")[0] == 401
            assert one.ask(f"/v1/{n}", Host="evil.example")[0] == 403
        counted = one.ask("/metrics", Authorization="Bearer key")[1]["raw"].decode()
    assert 'myna_requests_total{path="other",status="401"} 5.0' in counted
    assert "/v1/0" not in counted


def test_a_defect_is_told_without_what_was_typed(one, monkeypatch, capsys):
    monkeypatch.setattr("myna.serve.app.tokenize", lambda body, *_: {}[body["text"]])
    status, found, _ = one.ask("/v1/tokenize", {"text": "my secret"})
    assert (status, found["error"]["type"]) == (500, "server_error")
    said = [str(found)]
    until(lambda: said.append(capsys.readouterr().err) or "KeyError" in "".join(said))
    assert "secret" not in "".join(said)


def test_a_long_request_is_read_beside_the_others(one, monkeypatch):
    """While a thread is at it, /health is answered."""
    free, begun = threading.Event(), threading.Event()

    def slow(*given):
        begun.set()
        assert free.wait(30)
        return read_request(*given)

    monkeypatch.setattr("myna.serve.app.read_request", slow)
    answers = []
    body = {"prompt": "x" * (SHORT_BYTES + 1), "max_tokens": 1, "truncate": True}
    thread = threading.Thread(target=lambda: answers.append(one.complete(**body)))
    thread.start()
    assert begun.wait(30)
    assert one.ask("/health")[0] == 200
    free.set()
    thread.join(30)
    assert answers[0]["truncated"] == [True]


def test_names_are_short_and_each_once():
    assert unique_names(["runs/pydoc", "/x/pydoc/", "gpt2", "pydoc"]) == [
        "pydoc",
        "pydoc-2",
        "gpt2",
        "pydoc-3",
    ]


ANY_CHARACTER = st.characters(exclude_categories=())  # lone surrogates too


def schema_values(schema: dict) -> st.SearchStrategy:
    """What a schema allows, and near misses of it."""
    if "anyOf" in schema:
        return st.one_of(*map(schema_values, schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema.get("type", "object")
    found = []
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind == "string":
            found.append(st.text(ANY_CHARACTER, max_size=70))
        elif kind in ("integer", "number"):
            found.append(st.integers(-3, 70) | st.sampled_from([0, 1, 256, 257, 10**30, 10**400]))
            found.append(st.floats(-1, 3, allow_nan=False) | st.just(1e300))
        elif kind == "boolean":
            found.append(st.booleans())
        elif kind == "array":
            found.append(st.lists(schema_values(schema["items"]), max_size=5))
        elif kind == "object":
            fields = schema.get("properties", {})
            found.append(st.fixed_dictionaries({}, optional={k: schema_values(v) for k, v in fields.items()}))
        else:
            found.append(st.none())
    return st.one_of(*found)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(ANY_CHARACTER, max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(ANY_CHARACTER, max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


def fuzzed(one: Running, case: st.DataObject) -> None:
    """One request that may be anything: answered with 2xx or 4xx, in the API's shape."""
    paths = {path: how for path, how in one.ask("/openapi.json")[1]["paths"].items() if "post" in how}
    path = case.draw(st.sampled_from(sorted(paths)))
    schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = case.draw(schema_values(schema))
    if case.draw(st.integers(0, 3)) == 0:  # a field of another type, or one that is none
        body[case.draw(st.sampled_from([*schema["properties"], "foo", "\ud800"]))] = case.draw(ANY_JSON)
    if path.endswith("completions") and not isinstance(body.get("max_tokens"), int):
        body["max_tokens"] = 3  # for time's sake
    if path == "/v1/chat/completions" and case.draw(st.booleans()):  # hardly met by chance
        turns = case.draw(st.lists(st.text(ANY_CHARACTER, min_size=1, max_size=9), min_size=1, max_size=5))
        body["messages"] = [
            {"role": ROLES[1 + n % 2], "content": content}
            for n, content in enumerate(turns[len(turns) % 2 - 1 :])
        ]
    sent = case.draw(st.sampled_from([json.dumps(body).encode()] * 9 + [json.dumps(body).encode()[:-1]]))
    status, found, _ = one.ask(path, sent)
    assert 200 <= status < 300 or 400 <= status < 500, (path, sent, found)
    assert status < 300 or set(found["error"]) == {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def chatty() -> Iterator[Running]:
    """A server whose model can chat."""
    with running(tokenizer=with_chat_tokens(TOKENIZER)) as found:
        yield found


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_is_answered(chatty, case):
    fuzzed(chatty, case)


@pytest.mark.slow
def test_ten_thousand_requests_and_the_server_is_as_before():
    with running(tokenizer=with_chat_tokens(TOKENIZER)) as one:
        fixed = {"prompt": "Hello", "max_tokens": 20, "seed": 3}
        before = one.complete(**fixed)["choices"]

        @given(st.data())
        @settings(
            max_examples=10_000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        def send(case):
            fuzzed(one, case)

        send()
        assert one.complete(**fixed)["choices"] == before
        assert one.ask("/health")[:2] == (200, {"status": "ok"})
        assert one.served.worker.n_running == one.served.worker.n_waiting == 0
