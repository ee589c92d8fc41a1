"""`myna chat`: through a pipe, line by line without a terminal, and once in a real one."""

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from myna.cli import main
from myna.commands.chat_loop import Loop
from myna.errors import TextError
from myna.generate.chat import Chat
from myna.generate.sampling import Sampling
from myna.generate.text import TextEngine
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.signals import Interrupted
from myna.text.chat import with_chat_tokens
from myna.text.tokenizer import Tokenizer

TOKENIZER = with_chat_tokens(Tokenizer.bytes())
CALL = ("--device", "cpu", "--precision", "fp32")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of random weights that can chat, as a Hugging Face folder."""
    torch.manual_seed(0)
    shape = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=512, vocab_size=TOKENIZER.n_vocab)
    folder = tmp_path_factory.mktemp("chat") / "model"
    GPT(shape).save_pretrained(folder, TOKENIZER)
    return folder


@pytest.fixture
def piped(model_folder, monkeypatch, capsys):
    """Calls the command with lines on standard input: (exit code, stdout, stderr)."""

    def call(text: str | bytes, *args: object) -> tuple[int, str, str]:
        data = text.encode() if isinstance(text, str) else text
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "ascii"))
        code = main(["chat", str(model_folder), *CALL, *map(str, args)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def chat(model_folder) -> Chat:
    engine = TextEngine(GPT.from_pretrained(model_folder), TOKENIZER)
    return Chat(engine, Sampling(max_tokens=12, seed=1))


def reader(*lines: str):
    """Gives these lines, and notes which prompts were shown."""
    left, prompts = list(lines), []

    def read(prompt: str) -> str:
        prompts.append(prompt)
        if not left:
            raise EOFError
        return left.pop(0)

    read.prompts = prompts
    return read


def answers(
    model_folder: Path, *questions: str, system: str | None = None, max_tokens: int = 12
) -> list[str]:
    engine = TextEngine(GPT.from_pretrained(model_folder), TOKENIZER)
    one = Chat(engine, Sampling(max_tokens=max_tokens, seed=1), system)
    found = []
    for question in questions:
        with one.ask(question) as answer:
            found.append("".join(answer))
    return found


def test_a_pipe_asks_a_question_a_line_and_gets_answers_alone(piped, model_folder):
    said = piped('Hi\n\n"""\ntwo\n  lines\n"""\nэто\r\n', "--max-tokens", 12, "--seed", 1, "--system", "S")
    wanted = answers(model_folder, "Hi", "two\n  lines", "это", system="S")
    assert said == (0, "".join(f"{answer}\n" for answer in wanted), "")
    assert piped("") == (0, "", "")


def test_answers_as_json(piped, model_folder):
    code, out, err = piped("\ufeffHi\nAnd?", "--max-tokens", 12, "--seed", 1, "--json")
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["text"] for one in found] == answers(model_folder, "Hi", "And?")
    assert [(one["prompt"], one["number"], one["tokens"], one["finish_reason"]) for one in found] == [
        ("Hi", 0, 12, "length"),
        ("And?", 1, 12, "length"),
    ]
    assert {(one["model"], one["seed"], one["left_out"]) for one in found} == {(str(model_folder), 1, 0)}


def test_commands_work_in_a_pipe_too(piped, model_folder, tmp_path):
    lines = ["Hi", "/reset", "/system S", "Ho", f"/save {tmp_path / 'a b.jsonl'}", "/quit", "never"]
    code, out, err = piped("\n".join(lines), "--max-tokens", 12, "--seed", 1)
    assert code == 0
    assert out.startswith(answers(model_folder, "Hi")[0])
    assert err.splitlines() == [
        "myna chat: a new conversation begins",
        "myna chat: a new conversation begins, with a system turn",
        f"myna chat: written: {tmp_path / 'a b.jsonl'}",
    ]
    (saved,) = (tmp_path / "a b.jsonl").read_text("utf-8").splitlines()
    turns = json.loads(saved)["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant"]
    assert [turn["content"] for turn in turns[:2]] == ["S", "Ho"]
    assert out.endswith(turns[2]["content"] + "\n")


def test_turns_that_no_longer_fit_are_told(piped):
    code, _, err = piped(f"{'x' * 160}\n" * 4, "--max-tokens", 12, "--seed", 1)
    assert code == 0
    assert err.splitlines() == [
        f"myna chat: the {n} oldest turns do not fit the model's context any more; the answer is given without"
        for n in (2, 4)
    ]


def test_a_turn_is_computed_once(piped, monkeypatch):
    computed, hidden = [], GPT.hidden
    monkeypatch.setattr(
        GPT,
        "hidden",
        lambda self, ids, cache=None: (computed.append(ids.numel()), hidden(self, ids, cache))[1],
    )
    assert piped(f"{'x' * 150}\nb\n", "--max-tokens", 4, "--seed", 1)[0] == 0
    assert 150 < sum(computed) < 300


@pytest.mark.parametrize(
    ("text", "flags", "words"),
    [
        ("/nothing", (), "there is no command /nothing; /help lists them"),
        ("/save", (), "/save needs the name of a file"),
        ("/save a.jsonl", (), "nothing was said yet"),
        ("Hi\n/save model", (), "model is there already; give another name"),
        ("Hi\n/save ~nobody-here/x", (), "leads to no home folder"),
        ('"""\nHi', (), 'has no second """'),
        ("x" * 600, (), "the last turn needs more than the 500 tokens"),
        (b"Hi\n\xff\n", (), "line 2 of the standard input is not UTF-8"),
        ("Hi", ("--max-tokens", 0), "max-tokens is 0"),
        ("Hi", ("--max-tokens", -1), "max tokens is -1"),
        ("Hi", ("--max-tokens", 512), "max-tokens is 512, and the model's context 512"),
        ("Hi", ("--temperature", -1), "temperature is -1.0"),
        ("Hi", ("--system", " "), "--system is empty"),
        ("Hi", ("--tokenizer", "bytes"), "has no chat tokens"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_2(piped, model_folder, monkeypatch, text, flags, words):
    monkeypatch.chdir(model_folder.parent)
    code, _, err = piped(
        text, "--seed", 1, *(() if "--max-tokens" in flags else ("--max-tokens", 12)), *flags
    )
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert [path.name for path in model_folder.parent.iterdir()] == ["model"]


def test_a_model_that_cannot_chat_says_how_to_get_one_that_can(tmp_path, capsys):
    GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=32, vocab_size=257)).save_pretrained(
        tmp_path / "plain", Tokenizer.bytes()
    )
    assert main(["chat", str(tmp_path / "plain"), *CALL]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "myna prepare CORPUS --conversations" in err
    assert err.count("\n") == 1
    assert main(["chat", "", *CALL]) == 2


def test_an_error_is_told_to_a_person_and_the_conversation_goes_on(chat, capsys):
    read = reader("/what", "x" * 600, '"""', "a", '"""', "/help", "", " /not a command")
    Loop(chat, read, person=True).run()
    out, err = capsys.readouterr()
    assert [message.content for message in chat.messages[::2]] == ["a", " /not a command"]
    assert out == "".join(f"{message.content}\n" for message in chat.messages[1::2])
    assert read.prompts == ["> ", "> ", "> ", "... ", "... ", "> ", "> ", "> ", "> "]
    assert err.startswith("there is no command /what;")
    for words in ("shorten it", "/save FILE", "cut at 12 tokens; --max-tokens is the cap"):
        assert words in err


def test_a_block_that_ends_with_the_input_is_told(chat, capsys):
    Loop(chat, reader('"""', "a"), person=True).run()
    assert 'no second """' in capsys.readouterr().err
    assert chat.messages == []


def signalled(chat: Chat, number: int, at_step: int) -> None:
    """In that step of the engine a signal comes."""
    step, steps = chat.engine.step, iter(range(1, 10**6))

    def stepped():
        if next(steps) == at_step:
            os.kill(os.getpid(), number)
        return step()

    chat.engine.step = stepped


def test_ctrl_c_stops_an_answer_and_keeps_what_came(chat, capsys):
    signalled(chat, signal.SIGINT, 5)
    Loop(chat, reader("Hi", "And?"), person=True).run()
    out, err = capsys.readouterr()
    assert "stopped; what came of the answer stays" in err
    contents = [message.content for message in chat.messages]
    assert (contents[0], contents[2]) == ("Hi", "And?")
    assert 0 < len(contents[1]) <= 5
    assert out == f"{contents[1]}\n{contents[3]}\n"


@pytest.mark.parametrize(("number", "person"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_another_signal_ends_it_and_so_does_ctrl_c_without_a_person(chat, number, person):
    signalled(chat, number, 5)
    with contextlib.ExitStack() as stack:
        from myna.signals import interrupted_by_signals

        stack.enter_context(interrupted_by_signals())
        with pytest.raises(Interrupted) as ended:
            Loop(chat, reader("Hi", "never"), person=person).run()
    assert ended.value.number == number
    assert "never" not in [message.content for message in chat.messages]


def test_a_line_of_another_encoding_is_told(chat, capsys):
    lines = iter([TextError("that line is not UTF-8"), "Hi"])

    def read(prompt: str) -> str:
        match next(lines, None):
            case None:
                raise EOFError
            case TextError() as error:
                raise error
            case line:
                return line

    Loop(chat, read, person=True).run()
    assert "not UTF-8" in capsys.readouterr().err
    assert len(chat.messages) == 2


def read_until(terminal: int, words: str, seen: str = "") -> str:
    """What a terminal shows, up to some words."""
    while words not in seen:
        seen += os.read(terminal, 4096).decode("utf-8", "replace")
    return seen


def test_in_a_terminal(model_folder, child_environment):
    """A prompt, an answer, and Ctrl-C at the next prompt."""
    terminal, child_side = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "myna", "chat", str(model_folder), *CALL, "--max-tokens", "5", "--seed", "1"],
        env=child_environment | {"TERM": "dumb"},
        stdin=child_side,
        stdout=child_side,
        stderr=child_side,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    ) as process:
        os.close(child_side)
        try:
            assert "512 tokens of context. /help lists the commands." in read_until(terminal, "> ")
            os.write(terminal, b"Hi\n")
            read_until(terminal, "--max-tokens is the cap\r\n> ")
            # Python misses a signal that comes between the prompt and its wait for a key; the next line shows it.
            os.write(terminal, b"\x03\n")
            assert process.wait(60) == 130
        finally:
            process.kill()
            os.close(terminal)
