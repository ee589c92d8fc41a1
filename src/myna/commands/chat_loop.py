"""The lines of `myna chat`: a question and its answer, or a command that begins with a slash."""

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator

from myna.errors import MynaError, UsageError
from myna.generate.chat import Answer, Chat
from myna.paths import given_path
from myna.signals import Interrupted, StopRequest, stop_on_signals

QUOTES = '"""'
HELP = f"""\
A line is a question. A question of several lines stands between two lines of {QUOTES}.
  /reset         begins anew; the system turn stays
  /system TEXT   sets the system turn, which stands before all others, and begins anew; without TEXT there is none
  /save FILE     writes the conversation as JSONL, which `myna prepare --conversations` reads
  /help          shows this
  /quit          ends, as Ctrl-D does
Ctrl-C stops an answer, and what came of it stays. When no answer is being written, it ends the program."""


class Loop:
    """Reads lines and answers them. Answers go to stdout, everything else to stderr.

    Args:
        chat: the conversation.
        read: shows a prompt and gives the next line, without its end; raises EOFError after the last.
        person: somebody sits there. An error is told and the conversation goes on, and Ctrl-C stops an answer. Without,
            an error or Ctrl-C ends the loop.
        model: its name where answers are to be printed as JSON, one per line; None for text.
    """

    def __init__(self, chat: Chat, read: Callable[[str], str], *, person: bool, model: str | None = None):
        self.chat, self.read, self.person, self.model = chat, read, person, model
        self._told_left_out = 0

    def run(self) -> None:
        """Until /quit or the last line.

        Raises:
            MynaError: without a person, the first line that can't be answered or obeyed.
        """
        goes_on = True
        while goes_on:
            try:
                goes_on = self._turn()
            except EOFError:
                return
            except MynaError as error:
                if not self.person:
                    raise
                self._tell(str(error))

    def _turn(self) -> bool:
        """One question or command. False at the end."""
        line = self.read("> ")
        if line.strip() == QUOTES:
            self._ask(self._block())
        elif line.startswith("/"):
            command, *words = line.split(maxsplit=1)
            return self._obey(command, "".join(words).strip())
        elif line.strip():
            self._ask(line)
        return True

    def _block(self) -> str:
        lines: list[str] = []
        try:
            while (line := self.read("... ")).strip() != QUOTES:
                lines.append(line)
        except EOFError:
            raise UsageError(f"a question that begins with {QUOTES} has no second {QUOTES}; add it") from None
        return "\n".join(lines)

    def _obey(self, command: str, words: str) -> bool:
        if command == "/quit":
            return False
        if command == "/help":
            self._tell(HELP)
        elif command == "/reset":
            self.chat.reset()
            self._tell("a new conversation begins")
        elif command == "/system":
            self.chat.begin(words or None)
            self._tell(f"a new conversation begins, with{'' if words else 'out'} a system turn")
        elif command == "/save":
            if not words:
                raise UsageError("/save needs the name of a file: /save FILE")
            path = given_path(words)
            self.chat.save(path)
            self._tell(f"written: {path}")
        else:
            raise UsageError(
                f"there is no command {command}; /help lists them. A question that begins with a slash stands "
                f"between two lines of {QUOTES}"
            )
        return True

    def _ask(self, question: str) -> None:
        with self.chat.ask(question) as answer, self._stopped_by_ctrl_c() as request:
            self._tell_left_out(answer.left_out)
            try:
                for text in answer:
                    self._show(text)
                    if request.asked():
                        break
            finally:
                self._show("\n")
        if self.model is not None:
            print(json.dumps(self._record(question, answer), ensure_ascii=False), flush=True)
        if request.asked() and request.signal_name != "SIGINT":
            raise Interrupted(signal.Signals[request.signal_name or ""])
        self._tell_end(answer)

    def _show(self, text: str) -> None:
        if self.model is None:
            print(text, end="", flush=True)

    @contextlib.contextmanager
    def _stopped_by_ctrl_c(self) -> Iterator[StopRequest]:
        if not self.person:
            yield StopRequest()
            return
        with stop_on_signals() as request:
            yield request

    def _tell_left_out(self, left_out: int) -> None:
        if left_out and left_out != self._told_left_out:
            which = "the oldest turn does" if left_out == 1 else f"the {left_out} oldest turns do"
            self._tell(f"{which} not fit the model's context any more; the answer is given without")
        self._told_left_out = left_out

    def _tell_end(self, answer: Answer) -> None:
        if answer.is_empty:
            self._tell("the answer is empty, so the conversation is as it was before the question")
        elif self.person and answer.finish_reason is None:
            self._tell("stopped; what came of the answer stays")
        elif self.person and answer.finish_reason == "length":
            self._tell(f"cut at {answer.n_new} tokens; --max-tokens is the cap")

    def _record(self, question: str, answer: Answer) -> dict[str, object]:
        """The answer in the words of `myna sample --json`."""
        return {
            "model": self.model,
            "prompt": question,
            "number": self.chat.n_asked - 1,
            "seed": self.chat.sampling.seed,
            "text": answer.text,
            "tokens": answer.n_new,
            "finish_reason": answer.finish_reason,
            "left_out": answer.left_out,
        }

    def _tell(self, text: str) -> None:
        lead = "" if self.person else "myna chat: "
        print(f"{lead}{text}", file=sys.stderr, flush=True)
