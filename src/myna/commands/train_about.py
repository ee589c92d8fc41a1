"""What a run's folder says of where it came from: the data, the machine, the versions."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import torch

from myna.data.mixture import Mixture, shares_in_words
from myna.data.split import Dataset
from myna.device import Precision, device_name
from myna.settings import is_number
from myna.store.address import without_secrets
from myna.store.here import address_of
from myna.train.machines.ranks import Ranks
from myna.version import version

# In recipe.json: the share of each dataset of a mixture, by name.
MIXTURE = "mixture"


def about_data(data: Mixture) -> dict[str, Any]:
    """What recipe.json says of the data: each dataset, and of a mixture the shares."""
    about: dict[str, Any] = {"trained_on": [trained_on(source.dataset) for source in data.sources]}
    return about if data.is_one else about | {MIXTURE: data.shares}


def mixture_changed(stored: Mapping[str, Any], data: Mixture) -> str:
    """The shares before and now, in words; nothing where neither is of a mixture."""
    before = stored.get(MIXTURE)
    if data.is_one and not before:
        return ""
    known = (
        {name: share for name, share in before.items() if is_number(share)}
        if isinstance(before, dict)
        else {}
    )
    return f"{shares_in_words(known) or 'one dataset'}, now {data}"


def trained_on(dataset: Dataset) -> dict[str, Any]:
    """What recipe.json says of a dataset: where it was, what it was made of, and what identifies it.

    Another project's files don't say what they were made of, but their format and names tell who wrote them.
    """
    about = {
        "path": address_of(dataset.path),
        "corpus": dataset.corpus,
        "tokenizer": dataset.tokenizer_sha256,
        "identity": dataset.identity,
        "format": dataset.info["format"],
    }
    if dataset.tokenizer_path is None:
        about["val_files"] = [shard.path.name for shard in dataset.val.shards]
    return about


def environment(ranks: Ranks, precision: Precision) -> dict[str, Any]:
    """What the run stands on: enough to tell why two runs differ."""
    return {
        "myna": version(),
        "commit": source_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "device": device_name(ranks.device),
        "world_size": ranks.world_size,
        "precision": precision.name,
        "precision_reason": precision.reason,
        "command": [without_secrets(word) for word in sys.argv[1:]],
    }


def source_commit() -> str | None:
    """The commit of the checkout this code runs from; None where it is installed without one."""
    try:
        found = subprocess.run(
            ["git", "-C", os.path.dirname(__file__), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
