"""Single files whose content is known: fetched once into the user's cache, and held to their hash at each use."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from myna.data.sources.source import Source, kind_of
from myna.files import cache_folder, download, sha256_file


@dataclass(frozen=True)
class PublishedFile:
    """One file with a known hash. As a corpus, its suffix says what it holds.

    Attributes:
        folder: of the user's cache.
    """

    name: str
    url: str
    n_bytes: int
    sha256: str
    folder: str = "corpora"

    def fetched(self, on_bytes: Callable[[int, int | None], None] | None = None) -> Path:
        """Where it is on this machine, verified.

        Args:
            on_bytes: told of bytes so far and in all, where it has to be fetched.
        Raises:
            DownloadError: it can't be fetched, or is not the published file.
        """
        path = cache_folder() / self.folder / self.name
        if not path.is_file() or path.stat().st_size != self.n_bytes or sha256_file(path) != self.sha256:
            download(self.url, path, sha256=self.sha256, on_bytes=on_bytes)
        return path

    def files(self, part: str) -> list[Source]:
        """The file, as a corpus of one.

        Raises:
            DownloadError: see `fetched`.
        """
        kind = kind_of(self.name) or ("text", "")
        return [Source(self.name, str(self.fetched()), *kind, n_bytes=self.n_bytes, sha256=self.sha256)]
