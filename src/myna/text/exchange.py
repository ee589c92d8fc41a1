"""Tokenizer files of any kind to what runs them, and GPT-2's own pair of files.

Each kind that we write (see also `tokenizer_json` and `ranks`) is read back as the same tokenizer, pattern included.
What is read is checked, so that no file gives ids by a rule it doesn't follow: a tokenizer.json that is byte-level BPE
of a pattern we know, in the order of its ids, is ours to run; any other goes to its own library. Of a folder, all of
its files are read (see `folder`); a file that is named itself is read alone.
"""

import json
import os
import warnings
from pathlib import Path
from typing import Any

from myna.errors import TokenizerError
from myna.files import NOT_THERE, is_named, json_bytes, write_atomic
from myna.parsing import parse_json
from myna.paths import said_of_link
from myna.text import gpt2, patterns
from myna.text.engines import RankModel
from myna.text.folder import ADDED, AS_WRITTEN, CONFIG, SPECIAL_MAP, FolderSettings, check_added
from myna.text.foreign import SENTENCEPIECE_FORMAT, HuggingFaceModel, SentencePieceModel
from myna.text.model import Model
from myna.text.ranks import load_ranks
from myna.text.tokenizer_json import read_vocabulary, to_json
from myna.text.vocabulary import Vocabulary, tokens_by_id

TOKENIZER_JSON = "tokenizer.json"
PAIRS = (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json"))
SENTENCEPIECE = "tokenizer.model"
# All names that say something of a tokenizer, and of nothing else.
NAMES = (TOKENIZER_JSON, *PAIRS[0], *PAIRS[1], SENTENCEPIECE, CONFIG, ADDED, SPECIAL_MAP)

_WHAT_TO_DO = "copy or download the file again, or give another tokenizer"


def names_in(folder: Path) -> list[str]:
    """The names in a folder that say something of a tokenizer, whatever is behind them; rank files come last.

    Raises:
        OSError: the folder can't be read.
    """
    names = [name for name in NAMES if is_named(folder / name)]
    if TOKENIZER_JSON in names:  # which needs no rank file, nor a folder that may be listed
        return names
    return names + sorted(name for name in os.listdir(folder) if name.endswith(".tiktoken"))


def load(path: Path) -> Model:
    """The tokenizer in a file or directory.

    Raises:
        TokenizerError: there is none, or it can't be read.
    """
    try:
        return _load_directory(path) if path.is_dir() else _load_file(path)
    except OSError as error:
        place = Path(error.filename or path)
        why = (isinstance(error, NOT_THERE) and said_of_link(place)) or error.strerror
        raise TokenizerError(
            f"cannot read the tokenizer {place}: {why}; put it right, or give another tokenizer"
        ) from error


def _load_file(path: Path) -> Model:
    if path.suffix == ".tiktoken":
        return RankModel(load_ranks(path))
    if path.suffix == ".model":
        return SentencePieceModel(path.read_bytes(), str(path))
    return read_json(path.read_bytes(), str(path))


def _load_directory(path: Path) -> Model:
    names = names_in(path)
    if TOKENIZER_JSON in names:
        return _with_settings((path / TOKENIZER_JSON).read_bytes(), path, str(path / TOKENIZER_JSON))
    for merges, vocab in PAIRS:
        if merges in names and vocab in names:
            model = read_gpt2_files((path / merges).read_bytes(), (path / vocab).read_bytes(), str(path))
            return _with_settings(to_json(model.vocabulary), path, str(path), model)
    if SENTENCEPIECE in names:
        model_file = SentencePieceModel((path / SENTENCEPIECE).read_bytes(), str(path / SENTENCEPIECE))
        FolderSettings(path).check_sentencepiece(model_file.special_tokens, model_file.pieces)
        return model_file
    ranks = [name for name in names if name.endswith(".tiktoken")]
    if len(ranks) == 1:
        return _load_file(path / ranks[0])
    raise TokenizerError(
        f"no tokenizer in {path}: expected tokenizer.json, vocab.bpe and encoder.json, vocab.json and merges.txt, "
        f"tokenizer.model, or one .tiktoken file" + f", and there is only {', '.join(names)}" * bool(names)
    )


def _with_settings(data: bytes, path: Path, name: str, of_pair: RankModel | None = None) -> Model:
    """The tokenizer of a tokenizer.json and of the settings in its folder.

    Args:
        data: a tokenizer.json; that of `of_pair`, if the folder holds GPT-2's pair of files instead.
    Raises:
        TokenizerError: the settings can't be followed.
    """
    content = _parsed(data, name)
    if content.get("format") == SENTENCEPIECE_FORMAT:
        return SentencePieceModel.from_envelope(content, name)
    settings = FolderSettings(path)
    if settings.are_empty():
        return of_pair or read_json(data, name)
    classes = (
        settings.read_as("", "GPT2Tokenizer")
        if of_pair
        else settings.read_as(data.decode("utf-8"), AS_WRITTEN)
    )
    if of_pair and classes[0] == AS_WRITTEN:
        raise settings.refused(f"{settings.config_class} reads a tokenizer.json, which is not there")
    found = [settings.effective(content, one) for one in (classes[:1] if of_pair else classes)]
    if any(other != found[0] for other in found):
        raise settings.refused(f"which class reads it depends on the model type {settings.model_type}")
    if found[0] == content:
        return of_pair or read_json(data, name)
    return read_json(json_bytes(found[0]), name)


def read_json(data: bytes, name: str) -> Model:
    """The tokenizer in a tokenizer.json: ours where its rule is ours, else its own library's.

    Raises:
        TokenizerError: it is no tokenizer.json.
    """
    content = _parsed(data, name)
    if content.get("format") == SENTENCEPIECE_FORMAT:
        return SentencePieceModel.from_envelope(content, name)
    model = content["model"]
    check_added(content.get("added_tokens") or [], model.get("vocab"), name)
    if model.get("dropout"):
        warnings.warn(
            f"{name} leaves out merges by chance (dropout {model['dropout']}); this is switched off here, so that a "
            "text always has the same ids",
            stacklevel=2,
        )
        content = content | {"model": model | {"dropout": None}}
        data = json_bytes(content)
    vocabulary = read_vocabulary(content)
    return RankModel(vocabulary) if vocabulary else HuggingFaceModel(data, name)


def _parsed(data: bytes, name: str) -> dict[str, Any]:
    """A tokenizer.json as an object that has a model."""
    try:
        content = parse_json(data)
    except ValueError as error:
        raise TokenizerError(f"{name} is no tokenizer: not JSON ({error}); {_WHAT_TO_DO}") from None
    if not isinstance(content, dict) or (
        content.get("format") != SENTENCEPIECE_FORMAT and not isinstance(content.get("model"), dict)
    ):
        raise TokenizerError(f"{name} is no tokenizer.json: it has no model; {_WHAT_TO_DO}")
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise TokenizerError(
            f"{name} is no tokenizer.json: its added_tokens are no list of tokens; {_WHAT_TO_DO}"
        )
    return content


# -- GPT-2's own files


def read_gpt2_files(merges: bytes, vocab: bytes, name: str) -> RankModel:
    """The tokenizer of a `vocab.bpe` and `encoder.json` (on the hub: `merges.txt` and `vocab.json`).

    Raises:
        TokenizerError: they are not such files, or don't belong together.
    """
    try:
        pairs = gpt2.read_merges(merges)
        ids = parse_json(vocab)
        made = {gpt2.spell(left + right) for left, right in pairs}
        specials = {token: i for token, i in ids.items() if len(token) != 1 and token not in made}
        by_id = {i: gpt2.to_bytes(token) for token, i in ids.items() if token not in specials}
        vocabulary = Vocabulary(patterns.GPT2, tokens_by_id(by_id), specials)
    except (KeyError, TypeError, ValueError, AttributeError, TokenizerError) as error:
        raise TokenizerError(f"{name}: not GPT-2's pair of merges and vocabulary ({error})") from None
    if vocabulary.merges != tuple(pairs):
        raise TokenizerError(
            f"{name}: the merges and the vocabulary don't belong together, or not in the order of ids"
        )
    return RankModel(vocabulary)


def save_gpt2_files(vocabulary: Vocabulary, directory: Path) -> None:
    """Writes `vocab.bpe` and `encoder.json`, byte for byte as OpenAI's are for GPT-2.

    Raises:
        TokenizerError: the vocabulary has another pattern, which these files can't say.
    """
    if vocabulary.pattern.name != "gpt2" or not vocabulary.is_complete:
        raise TokenizerError(
            "vocab.bpe and encoder.json can only hold vocabularies of GPT-2's pattern; use tokenizer.json"
        )
    lines = ["#version: 0.2", *(" ".join(map(gpt2.spell, merge)) for merge in vocabulary.merges)]
    ids = {gpt2.spell(token): i for token, i in vocabulary.ranks.items()} | dict(vocabulary.special_tokens)
    write_atomic(directory / "vocab.bpe", ("\n".join(lines) + "\n").encode("utf-8"))
    write_atomic(directory / "encoder.json", json.dumps(ids).encode("ascii"))
