"""Datasets on the hub as lists of parquet and JSONL files. No dataset script is ever run.

A dataset's card may name configurations, each with its files; without one, CONFIG is a folder of the repository. A
repository with no readable files of its own is read from the parquet copy that the hub makes of it.
"""

import fnmatch
import shutil
from pathlib import Path
from typing import Any

from myna.data.sources.source import Source, kind_of
from myna.errors import DataError, DownloadError, first_line

PARQUET_REVISION = "refs/convert/parquet"


def list_files(repository: str, part: str) -> list[Source]:
    """The training files of one dataset, by name.

    Args:
        repository: OWNER/NAME.
        part: a configuration of its card, or a folder; "" for its default.
    Raises:
        DownloadError: the hub can't be asked.
        DataError: it holds no such dataset, or nothing that can be read.
    """
    files = _list(repository, part, None) or _list(repository, part, PARQUET_REVISION)
    if not files:
        raise DataError(f"hf:{repository}{':' * bool(part)}{part} has no parquet or JSONL files for training")
    return files


def _api() -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise DataError("corpora on the hub need huggingface_hub: pip install 'myna[hub]'") from error
    return HfApi()


def _list(repository: str, part: str, revision: str | None) -> list[Source]:
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = _api().dataset_info(repository, revision=revision, files_metadata=True)
    except RevisionNotFoundError:
        return []
    except RepositoryNotFoundError as error:
        raise DataError(f"hf:{repository}: no such dataset on the hub, or it needs a login") from error
    except Exception as error:  # its errors come from several libraries
        raise DownloadError(
            f"cannot ask the hub for {repository}: {first_line(error)}; check the network"
        ) from error
    sizes = {file.rfilename: file for file in info.siblings or []}
    chosen = choose_files(list(sizes), part, _configurations(info.card_data))
    files = []
    for name in chosen:
        kind, compression = kind_of(name) or ("", "")
        lfs = sizes[name].lfs
        files.append(
            Source(
                name=f"hf:{repository}/{name}",
                place=name,
                kind=kind,
                compression=compression,
                n_bytes=sizes[name].size,
                repository=repository,
                revision=info.sha,
                sha256=lfs.sha256 if lfs else None,
            )
        )
    return files


def _configurations(card: Any) -> dict[str, list[str]]:
    """From a dataset card: configuration name -> patterns of its training files. The default one is also named ""."""
    found: dict[str, list[str]] = {}
    entries = (card.to_dict() if card else {}).get("configs") or []
    for entry in entries:
        data_files = entry.get("data_files", [])
        if isinstance(data_files, str):
            data_files = [data_files]
        patterns: list[str] = []
        for item in data_files:
            if isinstance(item, str):
                patterns.append(item)
            elif item.get("split", "train") in ("train", "train_sft"):
                path = item.get("path", [])
                patterns += [path] if isinstance(path, str) else list(path)
        name = str(entry.get("config_name", "default"))
        found[name] = patterns
        if entry.get("default") or name == "default" or len(entries) == 1:
            found.setdefault("", patterns)
    return found


def choose_files(names: list[str], part: str, configurations: dict[str, list[str]]) -> list[str]:
    """Which of a repository's files to read for training, in order of name.

    >>> choose_files(["data/train-0.parquet", "data/test-0.parquet", "README.md"], "", {})
    ['data/train-0.parquet']
    >>> choose_files(["a/x.parquet", "b/y.parquet"], "two", {"one": ["a/*"], "two": ["b/*"]})
    ['b/y.parquet']
    >>> choose_files(["sample/10BT/0.parquet", "data/1.parquet"], "sample/10BT", {})
    ['sample/10BT/0.parquet']
    """
    readable = sorted(name for name in names if (kind_of(name) or ("", ""))[0] in ("jsonl", "parquet"))
    if part in configurations:
        patterns = configurations[part]
        return [name for name in readable if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    inside = [name for name in readable if not part or name.startswith(part.rstrip("/") + "/")]
    train = [name for name in inside if "train" in name]
    others = ("test", "valid", "dev")
    return train or [name for name in inside if not any(word in name for word in others)]


def fetch_from_hub(file: Source, path: Path) -> None:
    """Downloads one file of a dataset to `path`.

    Raises:
        DownloadError: it did not come.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    folder = path.with_name(path.name + ".hub")
    try:
        got = hf_hub_download(
            file.repository or "", file.place, repo_type="dataset", revision=file.revision, local_dir=folder
        )
        Path(got).replace(path)
    except Exception as error:  # its errors come from several libraries
        raise DownloadError(f"cannot download {file.name}: {first_line(error)}; check the network") from error
    shutil.rmtree(folder, ignore_errors=True)
