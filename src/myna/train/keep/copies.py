"""Copies of a run on another store: any URL that fsspec knows (s3://, gs://, file://, ...).

The copy is a run folder like the first: checkpoints, and the small files that a second machine needs to go on, to
report and to serve. It is made by a thread of its own, after a checkpoint lies on the disk: a slow store delays neither
steps nor checkpoints. Where the store is slower than the run, a checkpoint that waits is left out in favour of a newer
one. A checkpoint's copy is whole when its manifest is there: it is sent last.

Before the first step a small probe is written, measured and removed: a place that can't be written is told then.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from myna.errors import OutputError, UsageError
from myna.files import sha256_bytes
from myna.model.checkpoint import MANIFEST
from myna.run import Run
from myna.store.address import connect, reason, without_secrets

TRIES = 5
FIRST_WAIT_S = 1.0  # doubled after each try
PROBE = b"Myna looks whether it can write here, and then removes this file.\n"


class Copier:
    """Sends a run to a store: its checkpoints, newest first, and with each of them what has changed of its small files.

    Args:
        url: the folder that becomes the copy of the run's.
        say: told of what went wrong, and of the end.
    Raises:
        UsageError: no such kind of URL, or its library is missing.
        OutputError: the store can't be reached, or nothing can be written there.
    """

    def __init__(self, url: str, run: Run, say: Callable[[str], None]):
        self.url, self.run, self.say = without_secrets(url).rstrip("/"), run, say
        if not url.strip():
            raise UsageError("--copy-to is empty; give a URL that fsspec knows, or leave it out")
        try:
            self.store, self.root = connect(url, "--copy-to")
        except UsageError:
            raise
        except Exception as error:  # some stores connect at once; each raises its own library's errors
            raise self._refusal(error) from error
        try:
            self._prove()
        except Exception as error:  # each store raises its own library's errors
            raise self._refusal(error) from error
        self._changed = threading.Condition()
        self._waiting: Path | None = None
        self._sending: Path | None = None
        self._ended = False
        self._failure: str | None = None
        self._sent: dict[str, str] = {}  # the hash of each small file as it was sent
        # A daemon: a run that is stopped before its first step doesn't wait for a copy. The next call makes it again.
        self._thread = threading.Thread(target=self._work, name="checkpoint copier", daemon=True)
        self._thread.start()

    def _refusal(self, error: Exception) -> OutputError:
        return OutputError(
            f"--copy-to {self.url}: cannot write there ({reason(error)}); see that the place exists and that you may "
            "write to it, or leave --copy-to out"
        )

    def _prove(self) -> None:
        """Writes a probe, measures it, and removes it with the folders that it needed.

        A store that forbids removing will do: a copy removes something only where another checkpoint is in its place.
        The probe then stays there, and `say` is told.

        Raises:
            Exception: of the store's library: it can't be written or measured.
        """
        probe = f"{self.root.rstrip('/')}/.myna-probe-{secrets.token_hex(8)}"
        made: list[str] = []
        try:
            try:
                self.store.pipe_file(probe, PROBE)
            except FileNotFoundError:
                made = self._missing_folders()
                self.store.makedirs(self.root, exist_ok=True)
                self.store.pipe_file(probe, PROBE)
            self.store.invalidate_cache()
            arrived = self.store.size(probe)
            if arrived != len(PROBE):
                raise OSError(f"{arrived} of {len(PROBE)} bytes arrived")
        except Exception:
            with contextlib.suppress(Exception):
                self.store.rm_file(probe)
            self._remove_folders(made)
            raise
        try:
            self.store.rm_file(probe)
        except Exception as error:  # each store raises its own library's errors
            name = probe.rpartition("/")[2]
            self.say(
                f"{self.url} lets nothing be removed ({reason(error)}), so the small file {name} stays there"
            )
        self._remove_folders(made)

    def _missing_folders(self) -> list[str]:
        """The folders that the copies' own needs, itself included, the deepest first.

        Raises:
            FileNotFoundError: nothing of the place exists, not even the bucket, which is not ours to make.
        """
        missing, folder = [], self.root.rstrip("/")
        while folder and not self.store.exists(folder):
            missing.append(folder)
            above = self.store._parent(folder)
            folder = above if len(above) < len(folder) else ""  # the parent of file://~nobody is below it
        if not folder:
            raise FileNotFoundError(f"there is no {missing[-1] if missing else self.root}")
        return missing

    def _remove_folders(self, folders: list[str]) -> None:
        for folder in folders:
            with contextlib.suppress(Exception):
                self.store.rmdir(folder)

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
        """Sends what waits and what has changed since, and ends.

        Raises:
            OutputError: the last checkpoint could not be sent, or the small files after it.
        """
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()
        if self._failure is not None:
            raise OutputError(
                f"{self._failure}; {self.run.path} itself is whole. Give the same command again to send the rest"
            )

    def _work(self) -> None:
        while True:
            with self._changed:
                self._sending = None
                self._changed.wait_for(lambda: self._ended or self._waiting is not None)
                self._sending, self._waiting = self._waiting, None
                path = self._sending
            if path is None and self._failure is not None:
                return
            self._failure = self._send(path)
            if self._failure is not None:
                self.say(self._failure)
            if path is None:
                return

    def _send(self, path: Path | None) -> str | None:
        """Sends one checkpoint and the small files, or these alone; returns what went wrong, if it did in every try."""
        wait = FIRST_WAIT_S
        for number in range(1, TRIES + 1):
            try:
                self._put(path)
                return None
            except Exception as error:  # each store raises its own library's errors
                failure = reason(error)
                if number < TRIES:
                    time.sleep(wait)
                    wait *= 2
        what = "the records" if path is None else path.name
        return f"cannot copy {what} to {self.url} ({TRIES} tries): {failure}"

    def _put(self, path: Path | None) -> None:
        # Records name the checkpoints that were saved: they come after these.
        self._put_small([self.run.recipe_path, self.run.environment_path])
        if path is not None:
            self._put_checkpoint(path)
        self._put_small([*self.run.records, self.run.report_path, self.run.page_path])

    def _put_small(self, files: Sequence[Path]) -> None:
        for file in files:
            try:
                content = file.read_bytes()
            except FileNotFoundError:
                continue
            if file.suffix == ".jsonl":  # a line that is being written comes with the next copy
                content = content[: content.rfind(b"\n") + 1]
            if self._sent.get(file.name) == (hashed := sha256_bytes(content)):
                continue
            self.store.makedirs(self.root, exist_ok=True)
            self.store.pipe_file(self._path(file.name), content)
            self._require_size(self._path(file.name), len(content))
            self._sent[file.name] = hashed

    def _put_checkpoint(self, path: Path) -> None:
        target = self._path(f"{path.parent.name}/{path.name}")
        self.store.invalidate_cache()
        if self.store.exists(f"{target}/{MANIFEST}"):
            if self.store.cat_file(f"{target}/{MANIFEST}") == (path / MANIFEST).read_bytes():
                return
            self.store.rm_file(f"{target}/{MANIFEST}")
        self.store.makedirs(target, exist_ok=True)
        for file in sorted(path.iterdir(), key=lambda file: file.name == MANIFEST):
            self.store.put_file(str(file), f"{target}/{file.name}")
            self._require_size(f"{target}/{file.name}", file.stat().st_size)

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _require_size(self, target: str, whole: int) -> None:
        self.store.invalidate_cache()
        arrived = self.store.size(target)
        if arrived != whole:
            raise OSError(f"{target.rpartition('/')[2]}: {arrived} of {whole} bytes arrived")
