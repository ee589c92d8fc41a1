"""What every test may ask for."""

import contextlib
import http.server
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from myna import GPT
    from myna.run import Run

# The networks of the tests are tiny: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and nohup the end of the terminal; every child
# would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor fill the user's cache, and nothing reaches for the hub."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Finds a file of the data that may lie beside a checkout; a test that needs an absent one is skipped."""

    def find(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"needs {name}, which is not beside this checkout")
        return path

    return find


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """The first of $MYNA_BROWSER, chromium and google-chrome that is there; without one a test skips."""
    sync_api = pytest.importorskip("playwright.sync_api")
    names = [os.environ.get("MYNA_BROWSER", ""), "chromium", "chromium-browser", "google-chrome"]
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs a browser: install chromium, or name one in MYNA_BROWSER")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def child_environment() -> dict[str, str]:
    """The environment for a child process."""
    return dict(os.environ)


TEXT = "".join(
    f"{n} green bottles hanging on the wall, and if {n * 7 % 13} should fall: {n - 1}.\n" for n in range(900)
)


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 50,000 bytes as byte tokens, prepared once."""
    from myna import Tokenizer
    from myna.data.prepare import prepare

    folder = tmp_path_factory.mktemp("small")
    (folder / "text.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        prepare([str(folder / "text.txt")], folder / "data", Tokenizer.bytes(), workers=1)
    return folder / "data"


@pytest.fixture(scope="session")
def mixture(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """Names datasets for `myna train`, as "small:0.7": `small_dataset`, and `other`, 12,000 bytes of other text."""
    from myna import Tokenizer
    from myna.data.prepare import prepare

    folder = tmp_path_factory.mktemp("mixture")
    (folder / "small").symlink_to(small_dataset)
    text = "".join(f"{n}: the quick brown fox jumps over {n * n % 17} lazy dogs\n" for n in range(250))
    (folder / "other.txt").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        prepare([str(folder / "other.txt")], folder / "other", Tokenizer.bytes(), workers=1)
    return lambda *named: [word for one in named for word in ("--data", f"{folder}/{one}")]


SMALL_RUN = """
    shakespeare-char --n-layer 2 --n-head 2 --n-embd 32 --block-size 32 --sequence-length 32 --batch-tokens 256
    --micro-batch 4 --dropout 0.2 --learning-rate 0.001 --warmup-steps 4 --precision fp32 --device cpu
    --average-decay 0 --no-compile --eval-every 0 --sample-every 0
"""


@pytest.fixture(scope="session")
def small_run(small_dataset: Path) -> list[str]:
    """Arguments of `myna train` for a run of a few milliseconds a step, with dropout; --out and --steps to be added."""
    return [*SMALL_RUN.split(), "--data", str(small_dataset)]


@pytest.fixture(scope="session")
def small_run_with(small_run: list[str]) -> Callable[..., list[str]]:
    """The small run's arguments and more; --data among these takes the place of its own."""

    def call(*more: object) -> list[str]:
        words = list(map(str, more))
        return [*(small_run[: small_run.index("--data")] if "--data" in words else small_run), *words]

    return call


CONVERSATIONS = [
    {"messages": [{"role": ("user", "assistant")[n % 2], "content": f"{number} times {n}{'!' * (number % 5)}"}
                  for n in range(2 + 2 * (number % 3))]}
    for number in range(300)
]  # fmt: skip


@pytest.fixture(scope="session")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 300 conversations of 2, 4 and 6 turns, as byte tokens with chat tokens, prepared once."""
    from myna import Tokenizer
    from myna.data.prepare import prepare
    from myna.text.chat import with_chat_tokens

    folder = tmp_path_factory.mktemp("conversations")
    (folder / "some.jsonl").write_text("".join(json.dumps(one) + "\n" for one in CONVERSATIONS))
    tokenizer = with_chat_tokens(Tokenizer.bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        prepare([str(folder / "some.jsonl")], folder / "data", tokenizer, workers=1, conversations=True)
    return folder / "data"


@pytest.fixture
def train(small_run_with: Callable[..., list[str]]) -> "Callable[..., Run]":
    """Trains the small run in this process: (out, steps, *more arguments) to its folder; 0 steps
    are for `more` to say. Errors come as they are."""
    from myna.commands import train as command
    from myna.run import Run

    def run(out: Path, steps: int, *more: object) -> Run:
        command.main(small_run_with("--out", out, *(("--steps", steps) if steps else ()), *more))
        return Run(out)

    return run


@pytest.fixture
def refused(
    small_run_with: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Calls `myna train` with the small run's arguments and more, which must end with 2 and a line; that line."""
    from myna.cli import main

    def call(*more: object) -> str:
        capsys.readouterr()
        assert main(["train", *small_run_with(*more)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("myna train: ")
        assert said.count("\n") == 1, said
        return said

    return call


@pytest.fixture(scope="session")
def hashes() -> Callable[[Path, int], list[str]]:
    """The weights and the optimizer's state of a run's step, as (run's folder, step) to two SHA-256."""
    from myna.files import sha256_file

    def read(out: Path, step: int) -> list[str]:
        folder = out / "checkpoints" / f"step_{step:08d}"
        return [sha256_file(folder / name) for name in ("model.safetensors", "train_state.safetensors")]

    return read


@pytest.fixture(scope="session")
def save_tiny() -> "Callable[..., GPT]":
    """Writes a checkpoint of a tiny network: (path, seed, state) to the network, whose weights are its exp_avg too."""
    import torch

    from myna import GPT, GPTConfig, Tokenizer
    from myna.model.checkpoint import save_checkpoint
    from myna.model.weights import config_files

    def save(path: Path, seed: int = 0, state: dict[str, Any] | None = None) -> GPT:
        torch.manual_seed(seed)
        network = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=4, vocab_size=257))
        weights = network.state_dict()
        save_checkpoint(
            path,
            network,
            files=config_files(network, Tokenizer.bytes()),
            weights=weights,
            tokenizer=Tokenizer.bytes(),
            tensors={f"exp_avg.{name}": network.unpadded(name, w) for name, w in weights.items()},
            state={"samples": seed} if state is None else state,
        )
        return network

    return save


@contextlib.contextmanager
def _serving(content: bytes) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/hellaswag_val.jsonl", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def serving() -> Callable[[bytes], contextlib.AbstractContextManager[tuple[str, list[str]]]]:
    """A server on loopback that gives the same content for every path; its address, and what was asked for."""
    return _serving
