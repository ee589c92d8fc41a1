"""What a Hugging Face folder means: the one tokenizer.json that transformers 5 makes of all the files in it.

A folder may hold more than tokenizer.json, or than vocab.json and merges.txt. Other files name a class, which may have
a rule of its own, and they add tokens. Whoever reads one file alone gives other ids. So either all of it is followed
here, step by step as transformers 5 does, or the folder is refused by the name of what can't be followed.

Source: transformers 5: AutoTokenizer.from_pretrained, TokenizersBackend, GPT2Tokenizer and Qwen2Tokenizer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from myna.errors import TokenizerError
from myna.files import is_named
from myna.parsing import read_object
from myna.text.patterns import QWEN2_ONIGURUMA, byte_level, split_then_byte_level

CONFIG = "tokenizer_config.json"
ADDED = "added_tokens.json"
SPECIAL_MAP = "special_tokens_map.json"
# Classes that take tokenizer.json as it is.
FILE = "PreTrainedTokenizer"
FILE_CLASSES = (FILE, "TokenizersBackend", "PythonBackend", "BloomTokenizer")
# Classes that take the vocabulary and the merges alone, and bring their own rule; the tokens that they name unasked.
NAMED_BY_CLASS = {
    "GPT2Tokenizer": ("unk_token", "bos_token", "eos_token"),
    "Qwen2Tokenizer": ("unk_token", "eos_token", "pad_token"),
}
# The class of a model type, where nothing else names one.
CLASS_OF_TYPE = {
    **dict.fromkeys(("gpt2", "gptj", "gpt_neo", "codegen", "opt", "phi", "starcoder2"), "GPT2Tokenizer"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2Tokenizer"),
}
# Model types whose class is taken whatever tokenizer_config.json names.
OVERRULING = (
    "qwen2",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "qwen4_exp",
    "siglip2",
    "hyperclovax_vision_v2",
)
# Classes that give a sentencepiece model's own ids.
SENTENCEPIECE_CLASSES = ("", FILE, "TokenizersBackend", "LlamaTokenizer", "GemmaTokenizer")
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
PLAIN_BPE = {
    "type": "BPE",
    **dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")),
    **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False),
}
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

Token = dict[str, Any]


class Beside:
    """What stands beside a tokenizer's own files.

    Raises:
        TokenizerError: a file is no JSON object, or asks for code that is not here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _object(folder / CONFIG)
        self.added = _object(folder / ADDED)
        self.special_map = _object(folder / SPECIAL_MAP)
        model = _object(folder / "config.json")
        self.model_type = str(model.get("model_type") or "")
        found = self.config.get("tokenizer_class") or model.get("tokenizer_class") or ""
        if not isinstance(found, str):
            raise TokenizerError(f"{folder / CONFIG}: tokenizer_class is no text; correct it")
        self.named_class = found.removesuffix("Fast")
        maps = self.config.get("auto_map")
        if isinstance(maps, list) or (isinstance(maps, dict) and maps.get("AutoTokenizer")):
            raise self.refused("its rule is a program (auto_map)")
        for key in ("fast_tokenizer_files", "fix_mistral_regex", "init_inputs"):
            if self.config.get(key):
                raise self.refused(f"{CONFIG} has {key}, which changes what is read")

    def refused(self, why: str) -> TokenizerError:
        """The error for a folder that can't be followed; says both ways out."""
        return TokenizerError(
            f"{self.folder}: {why}, and Myna doesn't follow that; for the rule of transformers, save it with "
            "AutoTokenizer.from_pretrained(FOLDER).backend_tokenizer.save(FILE) and give FILE; for the rule of the "
            "tokenizer file alone, give that file instead of its folder"
        )

    def says_nothing(self) -> bool:
        """Whether the tokenizer's own files are all there is."""
        return not (self.config or self.added or self.special_map or self.model_type or self.named_class)

    def read_as(self, text: str, unnamed: str) -> list[str]:
        """The classes that may be the one transformers takes for a tokenizer.json: two where we can't tell.

        Args:
            unnamed: the class where neither a class nor a model type is named.
        Raises:
            TokenizerError: none of them is known.
        """
        by_type = CLASS_OF_TYPE.get(self.model_type)
        of_type = by_type or f"the class of {self.model_type}"
        known_type = by_type is not None or not self.model_type or self.model_type.startswith("myna-")
        if self.model_type in OVERRULING:
            found = [of_type]
        elif not self.named_class:
            found = [by_type or unnamed if known_type else of_type]
        elif self.named_class in FILE_CLASSES or (
            self.named_class == "LlamaTokenizer" and '"ByteLevel"' in text
        ):
            found = [FILE]
        else:
            found = [self.named_class] if known_type else [self.named_class, FILE]
        if found[0] != FILE and found[0] not in NAMED_BY_CLASS:
            raise self.refused(f"{found[0]} has a rule of its own")
        return found

    def check_sentencepiece(self, special_tokens: Mapping[str, int], pieces: Sequence[str]) -> None:
        """Refuses what would change a sentencepiece model's own ids.

        Raises:
            TokenizerError: the class has ids of its own, or a token is added.
        """
        if self.named_class not in SENTENCEPIECE_CLASSES or (self.model_type and not self.named_class):
            raise self.refused(
                f"{self.named_class or 'the class of ' + self.model_type} has a rule of its own"
            )
        declared = self._declared([])
        named, extra = self._named(declared, "")
        for token in (*declared.values(), *named, *extra):
            if token["content"] not in special_tokens:
                raise self.refused(f"it adds {token['content']!r} to the sentencepiece model's tokens")
        for i, token in declared.items():
            if not 0 <= i < len(pieces) or pieces[i] != token["content"]:
                raise self.refused(f"it gives {token['content']!r} the id {i}")

    def effective(self, content: Mapping[str, Any], name: str) -> dict[str, Any]:
        """A parsed tokenizer.json as the class `name` reads it, with all tokens that are added."""
        found, model = dict(content), content["model"]
        base: list[Token] = list(content.get("added_tokens") or [])
        declared = self._declared(base)
        if name in NAMED_BY_CLASS:
            if model.get("type", "BPE") != "BPE" or not isinstance(model.get("vocab"), dict):
                raise self.refused(f"{name} needs a BPE, and the file holds none")
            found |= _sections(name, bool(self.config.get("add_prefix_space")))
            found["model"] = PLAIN_BPE | {"vocab": model["vocab"], "merges": model.get("merges")}
            base = []
        named, extra = self._named(declared, name)
        tokens: dict[str, Token] = {token["content"]: token for token in base}
        known = set(tokens) | {token["content"] for token in declared.values()}
        names = {token["content"] for token in named}
        for token in (*(declared[i] for i in sorted(declared)), *named, *extra):
            if token["content"] not in known or token is declared.get(token.get("id", -1)):
                tokens[token["content"]] = {**token, "special": token["special"] or token["content"] in names}
        if name == "Qwen2Tokenizer":  # which adds them again, with no flag but one
            for token in (*named, *extra):
                tokens[token["content"]] |= dict.fromkeys(FLAGS, False) | {"special": True}
        ids = check_added(list(tokens.values()), model.get("vocab"), str(self.folder))
        found["added_tokens"] = [{"id": ids[content], **token} for content, token in tokens.items()]
        return found

    def _said(self, name: str) -> dict[str, Any]:
        """The settings, with what the class `name` says unasked, and with special_tokens_map.json where it counts."""
        said = dict.fromkeys(NAMED_BY_CLASS.get(name, ()), "<|endoftext|>") | self.config
        if "additional_special_tokens" in said and not said.get("extra_special_tokens"):
            said["extra_special_tokens"] = said.pop("additional_special_tokens")
        said["by_name"] = {}
        _set_apart(said)
        if "added_tokens_decoder" not in self.config:
            for key, value in self.special_map.items():
                if key == "extra_special_tokens" and isinstance(value, list):
                    value = [*(said.get(key) or []), *value]
                said[key] = value
            _set_apart(said)
        said.setdefault("extra_special_tokens", said.get("additional_special_tokens"))
        return said

    def _declared(self, base: Sequence[Token]) -> dict[int, Token]:
        """The tokens to add whose ids are stated: of tokenizer_config.json, or else of all other files."""
        if "added_tokens_decoder" in self.config:
            stated = self.config["added_tokens_decoder"]
            if not isinstance(stated, dict):
                raise self.refused("added_tokens_decoder is no object")
            tokens = [(i, self._token(token)) for i, token in stated.items()]
        else:
            said = self._said("")
            extra = said["extra_special_tokens"]
            values = [said.get(key) for key in NAMED] + (extra if isinstance(extra, list) else [])
            specials = {self._token(value)["content"] for value in values if value}
            tokens = [
                (i, self._token(content, special=content in specials)) for content, i in self.added.items()
            ]
            tokens += [(token.get("id"), self._token(token)) for token in base]
        return {self._number(i): {**token, "id": self._number(i)} for i, token in tokens}

    def _named(self, declared: Mapping[int, Token], name: str) -> tuple[list[Token], list[Token]]:
        """The tokens that have a name, such as eos_token, and the rest that are only called special."""
        said = self._said(name)
        named = {key: value for key, value in said.items() if key.endswith("_token")} | said["by_name"]
        extra = said["extra_special_tokens"] or []
        if not isinstance(extra, list):
            raise self.refused("its extra special tokens are no list")
        by_content = {token["content"]: token for token in declared.values()}
        tokens = [
            self._token(value, special=True) for value in named.values() if isinstance(value, (str, dict))
        ]
        return (
            [by_content.get(token["content"], token) for token in tokens],
            [self._token(value, special=True) for value in extra],
        )

    def _number(self, i: object) -> int:
        try:
            return int(i)  # type: ignore[call-overload]
        except (TypeError, ValueError):
            raise self.refused(f"{i!r} is no id of an added token") from None

    def _token(self, value: object, special: bool = False) -> Token:
        """An added token with all its flags.

        Raises:
            TokenizerError: it is none.
        """
        given = {"content": value, "special": special} if isinstance(value, str) else value
        if isinstance(given, dict):
            if special:
                given = {**given, "special": True}
            flags = {key: given.get(key, False) for key in FLAGS}
            flags["normalized"] = given.get("normalized", not flags["special"])
            content = given.get("content")
            if (
                isinstance(content, str)
                and content
                and all(isinstance(flag, bool) for flag in flags.values())
            ):
                return {"content": content, **flags}
        raise self.refused(f"{value!r} is no added token")


def check_added(tokens: Sequence[Any], vocab: Any, name: str) -> dict[str, int]:
    """The ids of added tokens, as the library tokenizers gives them: those of the vocabulary, then the next ones.

    Raises:
        TokenizerError: a token states another id, or its id is another token's.
    """
    if isinstance(vocab, dict):
        in_vocab = vocab
    else:  # of Unigram: a list of pieces and scores
        in_vocab = {piece[0]: i for i, piece in enumerate(vocab or []) if isinstance(piece, list) and piece}
    taken = {i for i in in_vocab.values() if isinstance(i, int)}
    ids: dict[str, int] = {}
    for token in tokens:
        content = token.get("content") if isinstance(token, dict) else None
        if not isinstance(content, str) or content in ids:
            raise TokenizerError(f"{name}: {token!r} is no added token, or it is there twice")
        after = max([len(in_vocab) - 1, *ids.values()]) + 1
        i = in_vocab.get(content, after)
        if token.get("id", i) != i or (content not in in_vocab and i in taken):
            raise TokenizerError(
                f"{name} states the id {token.get('id', i)} for the added token {content!r}, and the library "
                f"tokenizers gives it the id {i}; correct the file"
            )
        ids[content] = i
    return ids


def _set_apart(said: dict[str, Any]) -> None:
    """Moves extra special tokens that have names of their own (an object, not a list) to `by_name`."""
    if isinstance(said.get("extra_special_tokens"), dict):
        said["by_name"] |= said.pop("extra_special_tokens")


def _sections(name: str, add_prefix_space: bool) -> dict[str, Any]:
    """All but the model of the tokenizer.json that a class builds."""
    if name == "GPT2Tokenizer":
        normalizer, pre_tokenizer = None, byte_level(use_regex=True, add_prefix_space=add_prefix_space)
    else:
        normalizer = {"type": "NFC"}
        pre_tokenizer = split_then_byte_level(QWEN2_ONIGURUMA, add_prefix_space)
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return {
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
    }


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where nothing has its name."""
    return read_object(path, TokenizerError, "correct it, or remove it") if is_named(path) else {}
