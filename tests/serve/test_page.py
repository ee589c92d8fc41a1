"""The page in a real browser, against a real server with a tiny model of random weights.

Without a browser (see `browser` in tests/conftest.py) these tests skip.
"""

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("playwright.sync_api")
pytest.importorskip("axe_playwright_python.sync_playwright")

import torch
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.run import Run
from myna.serve.app import build_app
from myna.serve.limits import Guard, Limits
from myna.serve.measures import Measures
from myna.serve.models import Models, serve_model
from myna.serve.run import bound_socket
from myna.serve.runs import run_routes
from myna.text.chat import with_chat_tokens
from myna.text.tokenizer import Tokenizer

HTML = "<script>alert(1)</script>"
HTML_NAME = "<script>alert(1)<script>"  # a folder's name has no slash
STEP_SECONDS = 0.01  # of the model, so that a text takes long enough to be stopped
KEY = "open sesame"
PATIENCE_MS = 60_000  # on a busy machine; what is waited for comes in milliseconds else
expect.set_options(timeout=PATIENCE_MS)
VIEWS = ("complete", "chat", "tokenize", "runs")


@dataclass
class Site:
    """Servers on loopback, with the same models, of which "other" can chat: one open, one with a key."""

    url: str
    url_with_key: str
    runs: Path
    slow: list[float]  # seconds that each step of the model waits


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    runs = tmp_path_factory.mktemp("page") / "runs"
    write_run(runs / "one", 60)
    write_run(runs / HTML_NAME, 30, name=HTML)
    torch.manual_seed(0)
    slow = [0.0]
    served = []
    for name, tokenizer in (("small", Tokenizer.bytes()), ("other", with_chat_tokens(Tokenizer.bytes()))):
        shape = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=512, vocab_size=tokenizer.n_vocab)
        model = GPT(shape).eval()
        served.append(serve_model(name, model, tokenizer, "fp32", most_texts=8, prefix_bytes=0))
        engine = served[-1].worker.engine
        step = engine.step
        engine.step = lambda step=step: (time.sleep(slow[0]), step())[1]
    models = Models(served)
    with (
        listening(models, None, runs) as url,
        listening(models, KEY, None) as url_with_key,
    ):
        yield Site(url, url_with_key, runs, slow)
    for one in served:
        one.worker.close(timeout_s=5.0)


def write_run(path: Path, steps: int, **recipe: object) -> None:
    path.mkdir(parents=True)
    run = Run(path)
    shape = {"network": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 512}
    run.write_recipe(
        {"name": "tiny", "steps": 100, "batch_tokens": 64, "tokenizer": "bytes"} | shape | recipe
    )
    for step in range(1, steps + 1):
        write_step(run, step)
    run.append_sample({"step": steps, "prompt": "A", "text": f"nd so on {HTML}"})


def write_step(run: Run, step: int) -> None:
    run.append_metrics({"step": step, "tokens": 64 * step, "train_loss": 3 + 5 / step})
    if step % 10 == 0:
        run.append_metrics({"step": step, "tokens": 64 * step, "val_loss": 3.1 + 5 / step})
        run.append_metrics(
            {"step": step, "tokens": 64 * step, "hellaswag_acc_token": 0.26, "hellaswag_items": 500}
        )


@contextlib.contextmanager
def listening(models: Models, key: str | None, runs: Path | None) -> Iterator[str]:
    app, _ = build_app(models, Limits(), Guard(key, []), Measures(), [*run_routes(runs)])
    socket = bound_socket("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        socket.close()


@dataclass
class Watched:
    """What a page did: whether it asked others, and what it complained of."""

    site: Site
    context: BrowserContext
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    expected: str = "nothing"

    def open(self, url: str = "", view: str = "complete", *, clock: bool = False) -> Page:
        """The page, at a view; with a clock that can be put forward."""
        page = self.context.new_page()
        if clock:
            page.clock.install()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append("a script ran"), dialog.dismiss()))
        page.goto(f"{url or self.site.url}/#{view}")
        return page


@pytest.fixture
def watched(browser: Browser, site: Site) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    found = Watched(site, context)
    yield found
    site.slow[0] = 0.0
    context.close()
    assert [one for one in found.complaints if not re.search(found.expected, one)] == []
    ours = (site.url, site.url_with_key, "data:")
    assert [url for url in found.requests if not url.startswith(ours)] == []


def stream(*chunks: tuple[str, str, dict[str, float]], finish: str = "length") -> str:
    """A stream of the API: for each token its text, how it is written, and the likeliest in its place."""
    events = []
    for n, (text, written, likeliest) in enumerate(chunks):
        logprobs = {
            "tokens": [written],
            "token_logprobs": [likeliest[written]],
            "top_logprobs": [likeliest],
            "text_offset": [0],
        }
        last = n + 1 == len(chunks)
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish if last else None}
        events.append(json.dumps({"choices": [choice]}))
    return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])


def answer(*bodies: tuple[int, str, dict[str, str]]) -> Callable[[Route], None]:
    """Answers one request after the other; the last body stays."""
    left = list(bodies)

    def fulfil(route: Route) -> None:
        status, body, headers = left.pop(0) if len(left) > 1 else left[0]
        route.fulfill(status=status, body=body, headers={"content-type": "text/event-stream"} | headers)

    return fulfil


def test_a_text_comes_token_by_token_and_can_be_stopped(watched, site):
    page = watched.open()
    side = page.locator(".side").first
    page.get_by_label("Prompt", exact=True).fill("Once upon")
    page.get_by_label("Most new tokens").first.fill("400")
    page.get_by_label("Seed").first.fill("3")
    site.slow[0] = STEP_SECONDS
    page.get_by_label("Prompt", exact=True).press("Control+Enter")
    expect(side.locator(".token").nth(2)).to_be_attached()
    expect(page.locator("#stop")).to_be_enabled()
    expect(side.locator(".end")).to_be_empty()
    early = side.locator(".token").count()
    expect(side.locator(".token").nth(early + 3)).to_be_attached()
    page.keyboard.press("Escape")
    expect(side.locator(".end")).to_have_text("Stopped.")
    expect(page.locator("#stop")).to_be_disabled()
    stopped = side.locator(".token").count()
    assert early < stopped < 400
    assert side.locator(".output .prompt").text_content() == "Once upon"
    assert f"{stopped} tokens" in side.locator(".counts").text_content()
    time.sleep(3 * STEP_SECONDS)
    assert side.locator(".token").count() == stopped

    # The same tab stop holds all tokens; the panel of the one with the focus says what else was likely.
    side.locator(".token").first.focus()
    page.keyboard.press("ArrowRight")
    panel = page.locator("#panel")
    expect(panel).to_be_visible()
    assert panel.locator("tr").count() in (5, 6)
    assert panel.locator(".drawn").count() == 1
    assert side.locator("[aria-describedby=panel]").count() == 1
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()


def test_two_models_write_side_by_side(watched, site):
    page = watched.open()
    page.get_by_label("Two side by side").check()
    assert page.locator(".side").count() == 2
    assert [page.get_by_label(f"Model {n}").input_value() for n in (1, 2)] == ["small", "other"]
    for n in (0, 1):
        page.locator(".side summary").nth(n).click()
        page.get_by_label("Most new tokens").nth(n).fill(str(3 + n))
        page.get_by_label("Seed").nth(n).fill("1")
    page.locator("#run").click()
    for n in (0, 1):
        side = page.locator(".side").nth(n)
        expect(side.locator(".end")).to_have_text("Ended: no more tokens were asked for.")
        assert side.locator(".token").count() == 3 + n


def test_what_a_model_writes_is_text(watched, site):
    page = watched.open()
    likeliest = {HTML: -0.1, "<img src=x onerror=alert(2)>": -3.0}
    parts = [
        ("", "bytes:\\xf0\\x9f", {"bytes:\\xf0\\x9f": -1.0, "a": -2.0}),
        ("😀", "bytes:\\x98\\x80", {"bytes:\\x98\\x80": -0.5}),
    ]
    body = stream((HTML, HTML, likeliest), *parts, ("\n", "\n", {"\n": -4.0}))
    page.route("**/v1/completions", answer((200, body, {})))
    page.get_by_label("Prompt", exact=True).fill(HTML)
    page.locator("#run").click()
    tokens = page.locator(".side .token")
    expect(tokens).to_have_count(4)
    assert tokens.all_text_contents() == [HTML, "", "😀", "\n"]
    assert page.locator(".side .prompt").text_content() == HTML
    tokens.first.hover()
    assert page.locator("#panel th").all_text_contents() == [
        HTML.replace(" ", "·"),
        "<img·src=x·onerror=alert(2)>",
    ]
    assert "90.5%" in page.locator("#panel").text_content()
    tokens.nth(1).hover()
    expect(page.locator("#panel")).to_contain_text("bytes F0 9F")
    expect(page.locator("#panel")).to_contain_text("a part of a character")
    assert page.locator("script").count() == 2
    assert page.locator("main img").count() == 0


def test_a_suffix_can_be_given_to_a_model_that_fills(watched, site):
    listed = {"data": [{"id": "small", "can_fill": False}, {"id": "other", "can_fill": True}]}
    watched.context.route("**/v1/models", lambda route: route.fulfill(json=listed))
    page = watched.open()
    asked = []

    def fulfil(route: Route) -> None:
        asked.append(route.request.post_data_json)
        answer((200, stream(("mid", "mid", {"mid": -0.1}), finish="stop"), {}))(route)

    page.route("**/v1/completions", fulfil)
    side, suffix = page.locator(".side").first, page.get_by_label("Suffix")
    page.get_by_label("Prompt", exact=True).fill("Once ")
    expect(suffix).to_be_hidden()
    page.get_by_label("Model 1").select_option("other")
    suffix.fill(" end")
    page.locator("#run").click()
    expect(side.locator(".output")).to_have_text("Once mid end")
    page.get_by_label("Model 1").select_option("small")
    expect(suffix).to_be_hidden()
    page.locator("#run").click()
    expect(side.locator(".output")).to_have_text("Once mid")
    assert [request.get("suffix") for request in asked] == [" end", None]


def test_what_a_stop_text_cut_off_is_marked(watched, site):
    page = watched.open()
    tokens = [("one", "one", {"one": -0.1}), ("", " E", {" E": -0.1}), ("", "ND", {"ND": -0.1})]
    page.route("**/v1/completions", answer((200, stream(*tokens, finish="stop"), {})))
    page.get_by_label("Stop texts").first.fill(" END")
    page.locator("#run").click()
    expect(page.locator(".side .end").first).to_have_text("Ended at a stop text.")
    assert page.locator(".side .token.cut").all_text_contents() == [" E", "ND"]


def test_errors_stand_where_the_text_would(watched, site):
    watched.expected = "Failed to load resource"
    page = watched.open()
    problem = page.locator(".side .problem").first
    page.get_by_label("Temperature").first.fill("-1")
    page.locator("#run").click()
    expect(problem).to_have_text("Temperature is -1; give 0 (greedy) or more.")
    page.get_by_label("Temperature").first.fill("1")

    busy = json.dumps({"error": {"message": "too many requests", "type": "rate_limit_error"}})
    fine = stream(("A", "A", {"A": -0.1}))
    page.route("**/v1/completions", answer((429, busy, {"retry-after": "0.1"}), (200, fine, {})))
    page.locator("#run").click()
    expect(page.locator(".side .token")).to_have_text("A")
    expect(problem).to_be_hidden()
    page.unroute("**/v1/completions")

    failed = 'data: {"error": {"message": "the model failed", "type": "server_error"}}\n\ndata: [DONE]\n\n'
    cut = fine.replace("data: [DONE]\n\n", "")
    for body, words in ((failed, "The model failed."), (cut, "ended before the text did")):
        page.route("**/v1/completions", answer((200, body, {})))
        page.locator("#run").click()
        expect(problem).to_contain_text(words)
        page.unroute("**/v1/completions")
    page.route("**/v1/completions", lambda route: route.abort())
    page.locator("#run").click()
    expect(problem).to_contain_text("The server does not answer.")
    expect(page.locator("#stop")).to_be_disabled()


def said(*texts: str, finish: str = "stop", **first: object) -> str:
    """A stream of the chat API."""
    parts = [{"delta": {"content": text}, "finish_reason": None} for text in texts]
    parts.append({"delta": {}, "finish_reason": finish})
    events = [{"choices": []} | first, *({"choices": [part]} for part in parts)]
    usage = {"prompt_tokens": 9, "completion_tokens": len(texts), "total_tokens": 9 + len(texts)}
    events.append({"choices": [], "usage": usage})
    return "".join(f"data: {event}\n\n" for event in [*map(json.dumps, events), "[DONE]"])


def test_a_conversation_by_keyboard(watched, site):
    page = watched.open(view="chat")
    asked = []
    page.on(
        "request", lambda one: asked.append(one.post_data_json) if "chat/completions" in one.url else None
    )
    expect(page.locator("#chat-model option")).to_have_text(["other"])
    expect(page.locator("#chat-unable")).to_have_text("No conversations with small: not trained on any.")
    page.locator("#chat-settings summary").click()
    page.locator("#chat-settings").get_by_label("Most new tokens").fill("100")
    page.locator("#chat-settings").get_by_label("Seed").fill("3")
    page.get_by_label("System prompt").fill("Be kind.")
    field, turns = page.get_by_label("Message"), page.locator(".turn")
    field.press("Shift+Enter")
    assert field.input_value() == "\n"
    field.fill(" \n")
    field.press("Enter")  # nothing is asked
    field.fill("One\nTwo")
    site.slow[0] = STEP_SECONDS
    field.press("Enter")
    expect(turns).to_have_count(2)
    expect(page.locator("#turns")).to_have_attribute("aria-busy", "true")
    expect(turns.last.locator(".said")).not_to_be_empty()
    early = turns.last.locator(".said").text_content()
    assert field.input_value() == ""
    field.fill("And?")
    field.press("Enter")  # while an answer is written, nothing is sent
    page.keyboard.press("Escape")
    expect(page.locator("#chat-status")).to_have_text("Stopped.")
    expect(page.locator("#chat-stop")).to_be_disabled()
    site.slow[0] = 0.0
    kept = turns.last.locator(".said").text_content()
    assert kept.startswith(early)
    assert field.input_value() == "And?"
    field.press("Enter")
    expect(page.locator("#chat-status")).to_contain_text("in the context")
    assert turns.count() == 4
    assert [body["messages"] for body in asked] == [
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "One\nTwo"}],
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "One\nTwo"},
            {"role": "assistant", "content": kept},
            {"role": "user", "content": "And?"},
        ],
    ]
    assert asked[1] | {"messages": None} == {
        "model": "other", "messages": None, "truncate": True, "stream": True, "seed": 3, "max_tokens": 100,
        "stream_options": {"include_usage": True}, "temperature": 0.8, "top_k": 50,
    }  # fmt: skip
    page.get_by_role("button", name="New conversation").click()
    expect(turns).to_have_count(0)
    expect(field).to_be_focused()
    field.fill("Hi")
    field.press("Enter")
    expect(page.locator("#chat-status")).to_contain_text("in the context")
    assert len(asked[2]["messages"]) == 2


def test_what_is_said_in_a_conversation_is_text(watched, site):
    page = watched.open(view="chat")
    image = "<img src=x onerror=alert(2)>"
    page.route("**/v1/chat/completions", answer((200, said(HTML, image, finish="length", left_out=2), {})))
    page.get_by_label("Message").fill(HTML)
    page.locator("#send").click()
    expect(page.locator(".turn .said")).to_have_text([HTML, HTML + image])
    expect(page.locator(".turn .hint")).to_have_text(
        "Written without the 2 oldest turns: the model's context is full. Cut after 2 tokens."
    )
    assert page.locator("main img").count() == 0
    assert page.locator("script").count() == 2


def test_a_question_without_an_answer_is_back_in_the_field(watched, site):
    watched.expected = "Failed to load resource"
    page = watched.open(view="chat")
    field, problem = page.get_by_label("Message"), page.locator("#chat-problem")
    page.locator("#chat-settings summary").click()
    page.locator("#chat-settings").get_by_label("Temperature").fill("-1")
    field.fill("Hi")
    field.press("Enter")
    expect(problem).to_have_text("Temperature is -1; give 0 (greedy) or more.")
    assert field.input_value() == "Hi"
    assert page.locator(".turn").count() == 0
    busy = json.dumps({"error": {"message": "too many requests", "type": "rate_limit_error"}})
    page.route("**/v1/chat/completions", answer((429, busy, {"retry-after": "0.1"}), (200, said(" \n"), {})))
    field.press("Enter")
    expect(page.locator("#chat-status")).to_have_text(
        "The model answered nothing. Your message is back in the field."
    )
    expect(problem).to_be_hidden()
    assert field.input_value() == "Hi"
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", answer((200, said("A").replace("data: [DONE]\n\n", ""), {})))
    field.press("Enter")
    expect(problem).to_contain_text("ended before the text did")
    assert page.locator(".turn .said").all_text_contents() == ["Hi", "A"]  # what came stays


def test_a_model_that_cannot_chat_is_told(watched, site):
    page = watched.context.new_page()
    one = {"id": "small", "object": "model", "context_length": 512, "can_chat": False}
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [one]}))
    page.goto(f"{site.url}/#chat")
    expect(page.locator("#cannot-chat")).to_contain_text("small can't chat")
    expect(page.locator("#cannot-chat")).to_contain_text("myna prepare CORPUS --conversations")
    expect(page.locator("#chat-body")).to_be_hidden()


def test_the_key_is_asked_for_and_kept_in_memory_alone(watched, site):
    watched.expected = "status of 401"
    page = watched.open(site.url_with_key)
    dialog = page.locator("#key")
    expect(dialog).to_be_visible()
    page.get_by_role("textbox", name="API key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-problem")).to_be_visible()
    page.get_by_role("textbox", name="API key").fill(KEY)
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    page.get_by_label("Most new tokens").first.fill("2")
    page.locator("#run").click()
    expect(page.locator(".side .token")).to_have_count(2)
    stored = "[JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie, location.href]"
    assert KEY not in str(page.evaluate(stored))
    assert all(KEY not in url for url in watched.requests)
    page.reload()
    expect(dialog).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#server-problem")).to_contain_text("needs an API key")


def test_an_emoji_is_tokenized_as_it_is_typed(watched, site):
    page = watched.open(view="tokenize")
    tokens = page.locator("#tokenizers article").first.locator(".token")
    page.get_by_label("Text", exact=True).first.fill("a 😀\n")
    expect(tokens).to_have_text(["a", "·", "<F0>", "<9F>", "<98>", "<80>", "⏎"])
    expect(page.locator("#tokenizers .counts").first).to_have_text(
        "7 tokens · 7 bytes · 4 characters · 1 byte a token"
    )
    assert page.locator("#tokenizers article").count() == 2  # two models are served
    page.get_by_text("Ids", exact=True).click()
    expect(tokens).to_have_text(["97", "32", "240", "159", "152", "128", "10"])
    tokens.nth(2).hover()
    expect(page.locator("#panel")).to_contain_text("part of😀")
    expect(page.locator("#panel")).to_contain_text("placebyte 2")
    tokens.nth(2).click()
    steps = page.locator("#tokenizers article").first.locator(".merges")
    expect(steps).to_contain_text("nothing merges")
    assert tokens.nth(3).evaluate("token => token.classList.contains('in-word')")
    page.get_by_label("Text", exact=True).first.fill(HTML)
    expect(tokens).to_have_count(len(HTML))


def test_a_word_is_merged_step_by_step(watched, site):
    page = watched.open(view="tokenize")
    steps = [
        {"parts": ["h", "i", "!"], "bytes": [[104], [105], [33]], "ranks": [7, None], "chosen": 0},
        {"parts": ["hi", "!"], "bytes": [[104, 105], [33]], "ranks": [None], "chosen": None},
    ]
    told = {"words": [{"word": "hi!", "start": 0, "end": 3, "steps": steps}]}
    page.route("**/v1/merges", lambda route: route.fulfill(json=told))
    page.locator("#tokenizers .token").first.click()
    lines = page.locator("#tokenizers .steps").first.locator("li")
    expect(lines).to_have_text(["h7i–!", "hi–!"])
    assert lines.first.locator(".part.merging").all_text_contents() == ["h", "i"]


def test_a_run_is_opened_and_goes_on_live(watched, site):
    page = watched.open(view="runs", clock=True)
    expect(page.locator("#run-list input")).to_have_count(2)
    assert HTML_NAME in page.locator("#run-list b").all_text_contents()
    for box in page.locator("#run-list input").all():
        box.check()
    expect(page.locator("#about-runs")).to_contain_text(HTML)  # the recipe's name
    expect(page.locator("#loss canvas")).to_be_visible()
    legend = page.locator("#loss .legend")
    expect(legend).to_contain_text("one")
    expect(legend).to_contain_text("3.1833")  # the last validation loss
    expect(page.locator("#hellaswag .legend")).to_contain_text("0.2600 ± 0.0196")
    expect(page.locator("#loss .notes")).to_contain_text("GPT-2's line is not drawn.")
    expect(page.locator("#hellaswag .notes")).to_contain_text("Scored on 500 items")
    expect(page.locator("#samples .sample").first).to_contain_text(f"And so on {HTML}")
    page.get_by_text("Steps", exact=True).click()
    page.get_by_text("Log", exact=True).click()
    expect(page.locator("#loss .plot")).to_have_attribute("aria-label", re.compile("after 60 steps"))
    page.locator("#loss .plot").focus()
    page.keyboard.press("ArrowRight")
    expect(legend).to_contain_text("at 1 steps")

    page.locator(f"#run-list input[value='{HTML_NAME}']").uncheck()
    for step in range(61, 71):
        write_step(Run(site.runs / "one"), step)
    for _ in range(50):  # the page asks again by itself, some seconds after its last answer
        page.clock.fast_forward(5000)
        page.wait_for_timeout(100)
        if "step 70" in page.locator("#run-list").text_content():
            break
    expect(page.locator("#run-list")).to_contain_text("step 70 of 100")
    expect(page.locator("#loss .plot")).to_have_attribute("aria-label", re.compile("after 70 steps"))


def test_without_a_folder_the_page_says_how_to_give_one(watched, site):
    page = watched.open()
    body = json.dumps({"object": "list", "folder": None, "data": []})
    page.route(
        "**/v1/runs", lambda route: route.fulfill(status=200, body=body, content_type="application/json")
    )
    page.get_by_role("tab", name="Runs").click()
    expect(page.locator("#no-runs")).to_contain_text("--runs runs")


@pytest.mark.parametrize(
    ("folder", "typed"),
    [("runs", "runs/pydoc"), ("my runs", "'my runs/pydoc'"), ("it's", "'it'\"'\"'s/pydoc'")],
)
def test_an_empty_folder_is_quoted_in_the_command_that_fills_it(watched, site, folder, typed):
    page = watched.open()
    body = {"object": "list", "folder": folder, "data": []}
    page.route("**/v1/runs", lambda route: route.fulfill(json=body))
    page.get_by_role("tab", name="Runs").click()
    expect(page.locator("#no-runs pre")).to_have_text(f"myna train --out {typed}")


def test_tabs_and_theme_by_keyboard(watched, site):
    page = watched.open()
    tabs = {view: page.locator(f"#tab-{view}") for view in VIEWS}
    tabs["complete"].focus()
    for key, view in (
        ("ArrowRight", "chat"),
        ("ArrowRight", "tokenize"),
        ("End", "runs"),
        ("ArrowRight", "complete"),
        ("ArrowLeft", "runs"),
    ):
        page.keyboard.press(key)
        expect(tabs[view]).to_be_focused()
        expect(page.locator(f"#{view}")).to_be_visible()
        assert [name for name in VIEWS if tabs[name].get_attribute("aria-selected") == "true"] == [view]
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    expect(page.get_by_role("button", name="Light")).to_be_visible()
    assert page.evaluate(background) == dark
    expect(page.locator("#runs")).to_be_visible()  # the view is kept in the address


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view_is_accessible_and_fits(browser, site, theme):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=theme)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(site.url)
    page.get_by_label("Prompt", exact=True).fill("Once upon a time")
    page.get_by_label("Two side by side").check()
    for side in page.locator(".side").all():
        side.locator("summary").click()
        side.get_by_label("Most new tokens").fill("12")
    page.locator("#run").click()
    expect(page.locator(".side .end").last).not_to_be_empty()
    page.evaluate(Axe().axe_script)
    for view in VIEWS:
        page.get_by_role("tab", name=view.capitalize()).click()
        if view == "complete":
            page.locator(".side .token").first.hover()  # the panel of a token is looked at too
        elif view == "chat":
            page.get_by_label("Message").fill("Hi")
            page.locator("#chat-settings summary").click()
            page.locator("#chat-settings").get_by_label("Most new tokens").fill("12")
            # Without a seed, an answer now and then ends by itself before it is cut.
            page.locator("#chat-settings").get_by_label("Seed").fill("3")
            page.keyboard.press("Escape")
            page.locator("#send").click()
            expect(page.locator(".turn .hint")).to_have_text("Cut after 12 tokens.")
        elif view == "tokenize":
            page.locator("#text").fill("A 😀\n")  # few tokens: the check looks at each
            expect(page.locator("#tokenizers article").last.locator(".token")).to_have_count(7)
            page.locator("#tokenizers .token").first.click()
            expect(page.locator("#tokenizers .steps")).to_have_count(1)
        else:
            expect(page.locator("#samples .sample").first).to_be_visible()
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 800})
            found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
            grave = [one for one in found if one["impact"] in ("serious", "critical")]
            assert [(one["id"], one["nodes"][0]["html"]) for one in grave] == [], (view, width)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
    context.close()
