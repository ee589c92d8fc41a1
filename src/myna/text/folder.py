"""What a Hugging Face folder means: one tokenizer.json that gives the ids of transformers 5, which reads all files.

Beside tokenizer.json (or vocab.json and merges.txt) a folder may hold other files. They name a class, which may have a
rule of its own, and they add tokens. A program that reads only one of the files gets other ids. So this file follows
all of them, step by step as transformers 5 does. If it can't follow one, it refuses the folder, and the message names
the reason.

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
# Classes that take tokenizer.json as written. The first stands for all of them.
AS_WRITTEN = "PreTrainedTokenizer"
CLASSES_AS_WRITTEN = (AS_WRITTEN, "TokenizersBackend", "PythonBackend", "BloomTokenizer")
# Keys: classes that read only the vocabulary and the merges, and split by a rule of their own. Values: the tokens that
# the class sets to <|endoftext|> if no file sets them.
TOKENS_OF_CLASS = {
    "GPT2Tokenizer": ("unk_token", "bos_token", "eos_token"),
    "Qwen2Tokenizer": ("unk_token", "eos_token", "pad_token"),
}
# The class of a model type, if no file names a class.
CLASS_OF_TYPE = {
    **dict.fromkeys(("gpt2", "gptj", "gpt_neo", "codegen", "opt", "phi", "starcoder2"), "GPT2Tokenizer"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2Tokenizer"),
}
# For these model types transformers takes the class of the model type, even if tokenizer_config.json names another.
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
SENTENCEPIECE_CLASSES = ("", AS_WRITTEN, "TokenizersBackend", "LlamaTokenizer", "GemmaTokenizer")
TOKEN_KEYS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
PLAIN_BPE = {
    "type": "BPE",
    **dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")),
    **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False),
}
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

Token = dict[str, Any]


class FolderSettings:
    """The files of a folder that change the ids of its tokenizer file.

    Raises:
        TokenizerError: a file is no JSON object, or the folder needs a program (auto_map) that Myna doesn't run.
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
        self.config_class = found.removesuffix("Fast")
        maps = self.config.get("auto_map")
        if isinstance(maps, list) or (isinstance(maps, dict) and maps.get("AutoTokenizer")):
            raise self.refused("its rule is a program (auto_map)")
        for key in ("fast_tokenizer_files", "fix_mistral_regex", "init_inputs"):
            if self.config.get(key):
                raise self.refused(f"{CONFIG} has {key}, which changes what is read")

    def refused(self, why: str) -> TokenizerError:
        """The error for a folder that can't be followed; says both ways out."""
        return TokenizerError(
            f"{self.folder}: {why}; Myna can't follow that. To get the ids of transformers, write one file with "
            "AutoTokenizer.from_pretrained(FOLDER).backend_tokenizer.save(FILE), and give FILE. To use the tokenizer "
            "file by itself, give that file instead of the folder"
        )

    def are_empty(self) -> bool:
        """Whether the folder holds only the tokenizer's own files, or its other files set nothing."""
        return not (self.config or self.added or self.special_map or self.model_type or self.config_class)

    def read_as(self, text: str, unnamed: str) -> list[str]:
        """The class by which transformers reads a tokenizer.json: two classes if the files don't tell which of them.

        Args:
            text: the content of tokenizer.json; "" if there is only a pair of vocab.json and merges.txt.
            unnamed: the class if the files name neither a class nor a model type.
        Raises:
            TokenizerError: the class has a rule that is not known here.
        """
        by_type = CLASS_OF_TYPE.get(self.model_type)
        known_type = by_type is not None or not self.model_type or self.model_type.startswith("myna-")
        if self.model_type in OVERRULING or not self.config_class:
            if not known_type:
                raise self.refused(f"the class of {self.model_type} has a rule of its own")
            return [by_type or unnamed]
        # LlamaTokenizer itself isn't byte-level. So transformers takes a byte-level file as written if it names that.
        byte_level_llama = self.config_class == "LlamaTokenizer" and '"ByteLevel"' in text
        if self.config_class in CLASSES_AS_WRITTEN or byte_level_llama:
            return [AS_WRITTEN]
        if self.config_class not in TOKENS_OF_CLASS:
            raise self.refused(f"{self.config_class} has a rule of its own")
        return [self.config_class] if known_type else [self.config_class, AS_WRITTEN]

    def check_sentencepiece(self, special_tokens: Mapping[str, int], pieces: Sequence[str]) -> None:
        """Refuses what would change a sentencepiece model's own ids.

        Raises:
            TokenizerError: the class has ids of its own, or a token is added.
        """
        if self.config_class not in SENTENCEPIECE_CLASSES or (self.model_type and not self.config_class):
            raise self.refused(
                f"{self.config_class or 'the class of ' + self.model_type} has a rule of its own"
            )
        declared = self._declared([])
        with_key, without_key = self._special_tokens(declared, "")
        for token in (*declared.values(), *with_key, *without_key):
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
        if name in TOKENS_OF_CLASS:
            if model.get("type", "BPE") != "BPE" or not isinstance(model.get("vocab"), dict):
                raise self.refused(f"{name} needs a BPE, and the file holds none")
            found |= _sections(name, bool(self.config.get("add_prefix_space")))
            found["model"] = PLAIN_BPE | {"vocab": model["vocab"], "merges": model.get("merges")}
            base = []
        with_key, without_key = self._special_tokens(declared, name)
        keyed = {token["content"] for token in with_key}
        tokens: dict[str, Token] = {token["content"]: token for token in base}
        for _, token in sorted(declared.items()):
            tokens[token["content"]] = {**token, "special": token["special"] or token["content"] in keyed}
        # A special token that no file declares is new. If two have the same content, the later one counts.
        tokens |= {
            token["content"]: token for token in (*with_key, *without_key) if token["content"] not in tokens
        }
        if name == "Qwen2Tokenizer":
            # Qwen2Tokenizer adds the special tokens once more, with all flags off except `special`.
            for token in (*with_key, *without_key):
                tokens[token["content"]] |= dict.fromkeys(FLAGS, False) | {"special": True}
        ids = check_added(list(tokens.values()), model.get("vocab"), str(self.folder))
        found["added_tokens"] = [{"id": ids[content], **token} for content, token in tokens.items()]
        return found

    def _settings(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of tokenizer_config.json, over the defaults of the class `name`.

        Those of special_tokens_map.json are added only if tokenizer_config.json has no added_tokens_decoder.

        Returns:
            the settings; the extra special tokens that have keys of their own (those in an object, not in a list).
        """
        settings = dict.fromkeys(TOKENS_OF_CLASS.get(name, ()), "<|endoftext|>") | self.config
        by_key: dict[str, Any] = {}

        def move_by_key() -> None:
            if isinstance(settings.get("extra_special_tokens"), dict):
                by_key.update(settings.pop("extra_special_tokens"))

        # transformers takes these steps in this order.
        if "additional_special_tokens" in settings and not settings.get("extra_special_tokens"):
            settings["extra_special_tokens"] = settings.pop("additional_special_tokens")
        move_by_key()
        if "added_tokens_decoder" not in self.config:
            for key, value in self.special_map.items():
                if key == "extra_special_tokens" and isinstance(value, list):
                    value = [*(settings.get(key) or []), *value]
                settings[key] = value
            move_by_key()
        settings.setdefault("extra_special_tokens", settings.get("additional_special_tokens"))
        return settings, by_key

    def _declared(self, base: Sequence[Token]) -> dict[int, Token]:
        """The added tokens whose ids a file states, by id.

        They are those of added_tokens_decoder in tokenizer_config.json. Without it, they are those of added_tokens.json
        and `base`, the added tokens of tokenizer.json.
        """
        if "added_tokens_decoder" in self.config:
            stated = self.config["added_tokens_decoder"]
            if not isinstance(stated, dict):
                raise self.refused("added_tokens_decoder is no object")
            tokens = [(i, self._token(token)) for i, token in stated.items()]
        else:
            settings, _ = self._settings("")
            extra = settings["extra_special_tokens"]
            values = [settings.get(key) for key in TOKEN_KEYS] + (extra if isinstance(extra, list) else [])
            specials = {self._token(value)["content"] for value in values if value}
            tokens = [
                (i, self._token(content, special=content in specials)) for content, i in self.added.items()
            ]
            tokens += [(token.get("id"), self._token(token)) for token in base]
        return {self._number(i): {**token, "id": self._number(i)} for i, token in tokens}

    def _special_tokens(self, declared: Mapping[int, Token], name: str) -> tuple[list[Token], list[Token]]:
        """Two lists: the tokens that have a key of their own, such as eos_token; the special tokens without one."""
        settings, by_key = self._settings(name)
        by_key = {key: value for key, value in settings.items() if key.endswith("_token")} | by_key
        extra = settings["extra_special_tokens"] or []
        if not isinstance(extra, list):
            raise self.refused("its extra special tokens are no list")
        by_content = {token["content"]: token for token in declared.values()}
        tokens = [
            self._token(value, special=True) for value in by_key.values() if isinstance(value, (str, dict))
        ]
        return (
            [by_content.get(token["content"], token) for token in tokens],
            [self._token(value, special=True) for value in extra],
        )

    def _number(self, i: object) -> int:
        try:
            return int(i)  # type: ignore[call-overload]
        except (TypeError, ValueError):
            raise self.refused(f"{i!r} is not the id of an added token") from None

    def _token(self, value: object, special: bool = False) -> Token:
        """An added token with all its flags.

        Raises:
            TokenizerError: `value` is not an added token.
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
        raise self.refused(f"{value!r} is not an added token")


def check_added(tokens: Sequence[Any], vocab: Any, name: str) -> dict[str, int]:
    """The ids that the library `tokenizers` gives to added tokens, by content.

    A token of the vocabulary keeps its id. Any other gets the next id after the vocabulary and the tokens before it.

    Raises:
        TokenizerError: a token states another id, or its id is another token's.
    """
    if isinstance(vocab, dict):
        in_vocab = vocab
    else:
        # A Unigram model keeps its vocabulary as a list of [piece, score].
        in_vocab = {piece[0]: i for i, piece in enumerate(vocab or []) if isinstance(piece, list) and piece}
    taken = {i for i in in_vocab.values() if isinstance(i, int)}
    ids: dict[str, int] = {}
    for token in tokens:
        content = token.get("content") if isinstance(token, dict) else None
        if not isinstance(content, str) or content in ids:
            raise TokenizerError(f"{name}: {token!r} is not an added token, or it is there twice")
        after = max([len(in_vocab) - 1, *ids.values()]) + 1
        i = in_vocab.get(content, after)
        if token.get("id", i) != i or (content not in in_vocab and i in taken):
            raise TokenizerError(
                f"{name} gives the added token {content!r} the id {token.get('id', i)}, but the `tokenizers` library "
                f"would give it {i}; correct the file"
            )
        ids[content] = i
    return ids


def _sections(name: str, add_prefix_space: bool) -> dict[str, Any]:
    """Every section except `model` of the tokenizer.json that a class builds."""
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
    """The JSON object in a file; empty if the file doesn't exist."""
    return read_object(path, TokenizerError, "correct it, or remove it") if is_named(path) else {}
