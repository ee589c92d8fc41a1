"""`suffix` in the completions API: the prompt of a middle, what is refused, and an answer from a server's worker."""

import asyncio
from collections.abc import Iterator

import pytest
import torch

from myna.generate.engine import generate
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.text.fim import with_fim_tokens
from myna.text.tokenizer import Tokenizer

pytest.importorskip("starlette")

from myna.serve.completions import read_request
from myna.serve.errors import ApiError
from myna.serve.limits import Limits
from myna.serve.models import Models, Served, serve_model
from myna.serve.texts import Texts, whole

TOKENIZER = with_fim_tokens(Tokenizer.bytes())
EOT, PREFIX, MIDDLE, SUFFIX = 256, 257, 258, 259
CONTEXT = 64


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    torch.manual_seed(0)
    shape = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=CONTEXT, vocab_size=260)
    found = serve_model("filler", GPT(shape).eval(), TOKENIZER, "fp32", most_texts=4, prefix_bytes=1 << 20)
    yield found
    found.worker.close(timeout_s=5.0)


def prompts(served: Served, **body: object) -> list:
    return read_request(body, Models([served]), Limits()).shape.prompts


def answer(served: Served, **body: object) -> dict:
    async def ask() -> dict:
        texts = Texts(read_request(body, Models([served]), Limits()), Limits())
        try:
            return await whole(texts)
        finally:
            texts.close()

    return asyncio.run(ask())


def framed(prefix: str, suffix: str) -> list[int]:
    return [EOT, PREFIX, *prefix.encode(), SUFFIX, *suffix.encode(), MIDDLE]


def test_the_answer_is_the_middle(served):
    assert served.about()["can_fill"]
    asked = {"prompt": "é", "suffix": "<|fim_middle|>", "max_tokens": 20, "seed": 3, "n": 2}
    found = answer(served, **asked, logprobs=0)
    rows = generate(
        served.model, [framed("é", "<|fim_middle|>")] * 2, max_tokens=20, seed=3, stop_ids=range(256, 260)
    )
    assert [choice["text"] for choice in found["choices"]] == [TOKENIZER.decode(row) for row in rows]
    assert found["usage"]["prompt_tokens"] == len(framed("é", "<|fim_middle|>"))
    assert (
        found["choices"][0]["logprobs"]["text_offset"][0] == 1
    )  # behind the prompt, in which no frame counts


def test_prompts_are_framed_each_by_itself(served):
    found = prompts(served, prompt=["a", "b"], suffix="z")
    assert [one.ids for one in found] == [framed("a", "z"), framed("b", "z")]
    assert [one.ids for one in prompts(served, prompt=[[97, 256], [98]], suffix="")] == [
        [EOT, PREFIX, 97, 256, SUFFIX, MIDDLE],
        framed("b", ""),
    ]
    assert prompts(served, suffix="z")[0].ids == framed("", "z")


def test_what_does_not_fit_is_cut_where_that_is_asked_for(served):
    long = {"prompt": "p" * 40, "suffix": "s" * 40, "max_tokens": 10}
    (one,) = prompts(served, **long, truncate=True)
    assert one.ids == framed("p" * 25, "s" * 25)
    assert (one.truncated, one.echo) == (True, "p" * 25)
    (one,) = prompts(served, prompt="p", suffix="s" * 80, max_tokens=10, truncate=True)
    assert (one.ids, one.truncated) == (framed("p", "s" * 49), True)
    (one,) = prompts(served, prompt="p" * 30, suffix="s" * 30)
    assert (len(one.ids), one.truncated) == (CONTEXT, False)
    assert answer(served, **long, truncate=True)["truncated"] == [True]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"echo": True}, "echo", "echo does not go with suffix: the answer is the middle alone"),
        ({"slide": True}, "slide", "slide does not go with suffix"),
        ({"prompt": "p" * 31, "suffix": "s" * 30}, "suffix", "have 65 tokens with what frames them"),
        ({"suffix": "\ud800"}, "suffix", "the suffix can't be used: "),
        ({"prompt": "\ud800"}, "prompt", "the prompt can't be encoded"),
        ({"prompt": [260]}, "prompt", "id 260 is outside the vocabulary"),
    ],
)
def test_what_cannot_be_is_refused(served, body, param, words):
    with pytest.raises(ApiError) as refused:
        prompts(served, **({"prompt": "a", "suffix": "z"} | body))
    error = refused.value.body()["error"]
    assert (refused.value.status, error["param"]) == (400, param)
    assert words in error["message"]
