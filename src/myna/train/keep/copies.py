"""Copies of checkpoints on another store: any URL that fsspec knows (s3://, gs://, file://, ...).

They are made by a thread of their own, after a checkpoint lies on the disk: a slow store delays neither steps nor
checkpoints. Where the store is slower than the run, a checkpoint that waits is left out in favour of a newer one. A
copy is whole when its manifest is there: it is sent last.
"""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from myna.errors import OutputError, UsageError
from myna.model.checkpoint import MANIFEST

TRIES = 5
FIRST_WAIT_S = 1.0  # doubled after each try


def without_secrets(text: str) -> str:
    """A URL as it may be shown and kept: without a user's name and password, and without its query.

    >>> without_secrets("s3://key:secret@bucket/runs?token=abc")
    's3://bucket/runs'
    >>> without_secrets("--copy-to=ftp://me:pass@host/x")
    '--copy-to=ftp://host/x'
    """
    if "://" not in text:
        return text
    return re.sub(r"://[^/@]*@", "://", text.partition("?")[0])


class Copier:
    """Sends checkpoints to a store, newest first.

    Args:
        url: the folder that becomes the parent of `step_00000500` and so on.
        say: told of what went wrong, and of the end.
    Raises:
        UsageError: no such kind of URL, or its library is missing.
    """

    def __init__(self, url: str, say: Callable[[str], None]):
        import fsspec

        try:
            self.store, self.root = fsspec.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise UsageError(
                f"--copy-to {without_secrets(url)}: {error}; give a URL that fsspec knows"
            ) from error
        self.url, self.say = without_secrets(url).rstrip("/"), say
        self._changed = threading.Condition()
        self._waiting: Path | None = None
        self._sending: Path | None = None
        self._ended = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._work, name="checkpoint copier")
        self._thread.start()

    def add(self, path: Path) -> None:
        """A checkpoint that is finished."""
        with self._changed:
            self._waiting = path
            self._changed.notify()

    def busy(self, path: Path) -> bool:
        """Whether a checkpoint must stay, because it is being sent or will be."""
        with self._changed:
            return path in (self._waiting, self._sending)

    def finish(self) -> None:
        """Sends what waits, and ends.

        Raises:
            OutputError: the last checkpoint could not be sent.
        """
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()
        if self._failure is not None:
            raise OutputError(
                f"{self._failure}; the checkpoint itself is whole. Run the same command again to send it"
            )

    def _work(self) -> None:
        while True:
            with self._changed:
                self._sending = None
                self._changed.wait_for(lambda: self._ended or self._waiting is not None)
                self._sending, self._waiting = self._waiting, None
                path = self._sending
            if path is None:
                return
            self._failure = self._send(path)
            if self._failure is not None:
                self.say(self._failure)

    def _send(self, path: Path) -> str | None:
        """Sends one checkpoint; returns what went wrong, if it did in every try."""
        wait = FIRST_WAIT_S
        for number in range(1, TRIES + 1):
            try:
                self._put(path)
                return None
            except Exception as error:  # each store raises its own library's errors
                reason = ": ".join(
                    [type(error).__name__, *without_secrets(str(error)).strip().splitlines()[:1]]
                )
                if number < TRIES:
                    time.sleep(wait)
                    wait *= 2
        return f"cannot copy {path.name} to {self.url} ({TRIES} tries): {reason}"

    def _put(self, path: Path) -> None:
        target = f"{self.root.rstrip('/')}/{path.name}"
        self.store.invalidate_cache()
        if self.store.exists(f"{target}/{MANIFEST}"):
            if self.store.cat_file(f"{target}/{MANIFEST}") == (path / MANIFEST).read_bytes():
                return
            self.store.rm_file(f"{target}/{MANIFEST}")
        self.store.makedirs(target, exist_ok=True)
        for file in sorted(path.iterdir(), key=lambda file: file.name == MANIFEST):
            self.store.put_file(str(file), f"{target}/{file.name}")
            self.store.invalidate_cache()
            arrived, whole = self.store.size(f"{target}/{file.name}"), file.stat().st_size
            if arrived != whole:
                raise OSError(f"{file.name}: {arrived} of {whole} bytes arrived")
