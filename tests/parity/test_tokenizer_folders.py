"""Any Hugging Face folder gives transformers' own ids, or is refused: random files and fields, held to AutoTokenizer.

`split_special_tokens=True` is transformers' way to say that text which spells a special token is text, as it always is
here. Dropout is off on both sides.
"""

import functools
import json
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myna import Tokenizer
from myna.errors import TokenizerError
from myna.text import exchange

transformers = pytest.importorskip("transformers")

TEXT = "It's 12345 tests of  spaces\n\n naïve 中文 <tool> camel tools THE The the </s> pad\t!\n"
PROBES = [
    TEXT,
    "It's 1234567 <tool>x <new> tests  a</s>  ",
    " lead <|endoftext|>tests  \n \n camel",
    "Cafe\u0301 \ufb01 İ <tool>  </s>",
    "",
    "   ",
    "THE \u3000 don't 'S\r\n x",
]
EOT = "<|endoftext|>"


@functools.cache
def trained(pattern: str) -> Tokenizer:
    return Tokenizer.train([TEXT * 30], 300, pattern)


@functools.cache
def pair() -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        exchange.save_gpt2_files(trained("gpt2").vocabulary, Path(folder))
        return Path(folder, "encoder.json").read_text("utf-8"), Path(folder, "vocab.bpe").read_text("utf-8")


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


NAMES = ["<tool>", "</s>", "<new>", "camel", "the"]
flags = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("special", "lstrip", "rstrip", "normalized", "single_word"), st.booleans())
)
names = st.sampled_from([*NAMES, EOT])
objects = st.builds(lambda name, given: {"content": name, **given}, st.sampled_from(NAMES), flags)
typed = objects.map(lambda token: {"__type": "AddedToken", **token})
named = st.one_of(names, typed, st.none())
# Ids from 300 on are the next ones; 299 is taken by the end of text.
numbered = st.lists(objects, max_size=3, unique_by=lambda token: token["content"]).map(
    lambda tokens: {str(300 + i): token for i, token in enumerate(tokens)}
)
decoder = st.one_of(
    numbered,
    numbered.map(lambda tokens: {"299": {"content": EOT, "special": True}, **tokens}),
    objects.map(lambda token: {"310": token}),
)
added_json = st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(
    lambda chosen: {name: 300 + i for i, name in enumerate(chosen)}
)
classes = st.sampled_from(
    [
        "PreTrainedTokenizerFast", "PreTrainedTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer",
        "Qwen2TokenizerFast", "TokenizersBackend", "LlamaTokenizerFast", "LlamaTokenizer", "RobertaTokenizer",
        "BertTokenizer", "T5Tokenizer", "GPTNeoXTokenizerFast", "NoSuchTokenizer",
    ]
)  # fmt: skip
config = st.fixed_dictionaries(
    {},
    optional={
        "tokenizer_class": classes,
        "add_prefix_space": st.booleans(),
        "bos_token": named,
        "eos_token": named,
        "pad_token": named,
        "unk_token": named,
        "image_token": st.sampled_from(NAMES),
        "added_tokens_decoder": decoder,
        "additional_special_tokens": st.lists(names, max_size=2),
        "extra_special_tokens": st.lists(names, max_size=2) | st.just({"tool_token": "<tool>"}),
        "add_bos_token": st.booleans(),
        "do_lower_case": st.booleans(),
        "clean_up_tokenization_spaces": st.booleans(),
        "split_special_tokens": st.booleans(),
        "model_max_length": st.just(512),
    },
)
model_config = st.fixed_dictionaries(
    {},
    optional={
        "model_type": st.sampled_from(
            ["gpt2", "gpt2", "qwen2", "qwen3", "myna-x", "llama", "phi3", "bert", "opt"]
        ),
        "tokenizer_class": classes,
    },
)
special_map = st.fixed_dictionaries(
    {}, optional={"eos_token": names | objects, "pad_token": names | objects, "unk_token": names}
)
prefixed = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
file_changes = st.fixed_dictionaries(
    {},
    optional={
        "normalizer": st.sampled_from([{"type": "NFC"}, {"type": "Lowercase"}, {"type": "NFKC"}]),
        "pre_tokenizer": st.just(prefixed),
        "post_processor": st.just({**prefixed, "add_prefix_space": False}),
        "dropout": st.just(0.5),
        "ignore_merges": st.booleans(),
        "unk_token": st.just(EOT),
        "added": st.lists(objects, max_size=2, unique_by=lambda token: token["content"]),
    },
)


@functools.cache
def other(kind: str) -> str:
    """A tokenizer.json of another make, with 300 ids or a few less, and no added token but those that training adds."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if kind == "WordPiece":
        tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tok.pre_tokenizer, tok.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=300, special_tokens=["[UNK]", EOT], show_progress=False
        )
    elif kind == "Unigram":
        tok = Tokenizer(models.Unigram())
        tok.pre_tokenizer, tok.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=80, special_tokens=["<unk>", EOT], unk_token="<unk>", show_progress=False
        )
    else:
        tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        tok.pre_tokenizer, tok.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", EOT], show_progress=False)
    tok.train_from_iterator([TEXT] * 30, trainer)
    return tok.to_str()


def tokenizer_json(kind: str, changes: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(trained(kind).to_json() if kind.startswith("gpt") else other(kind))
    first = len(content["model"]["vocab"])
    for key, value in changes.items():
        if key == "added":
            off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
            content["added_tokens"] += [{**off, **token, "id": first + i} for i, token in enumerate(value)]
        elif key in ("dropout", "ignore_merges", "unk_token"):
            content["model"][key] = value
        else:
            content[key] = value
    return content


kinds = st.sampled_from(["gpt2", "gpt2", "gpt4", "gpt4", "WordPiece", "Unigram", "Metaspace"])
folders = st.fixed_dictionaries(
    {
        "tokenizer.json": maybe(st.builds(tokenizer_json, kinds, file_changes)),
        "pair": st.booleans(),
        "tokenizer_config.json": maybe(config),
        "config.json": maybe(model_config),
        "special_tokens_map.json": st.one_of(st.none(), st.none(), special_map),
        "added_tokens.json": st.one_of(st.none(), st.none(), added_json),
    }
)


def write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        if name == "pair" and content:
            for file, text in zip(("vocab.json", "merges.txt"), pair(), strict=True):
                (folder / file).write_text(text, encoding="utf-8")
        elif name != "pair" and content is not None:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")


def theirs(folder: Path) -> list[list[int]] | None:
    """The ids of transformers; None where it gives up."""
    try:
        found = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except BaseException as error:  # its Rust panics, which is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return None
    if getattr(found.backend_tokenizer.model, "dropout", None):
        found.backend_tokenizer.model.dropout = None
    return [found.encode(text, add_special_tokens=False, split_special_tokens=True) for text in PROBES]


def check(files: dict[str, Any], outcomes: Counter[str]) -> None:
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        write(folder, files)
        try:
            ours = Tokenizer.load(folder)
        except TokenizerError as error:
            outcomes["refused in many lines" if "\n" in str(error) else "refused"] += 1
            return
        expected = theirs(folder)
        outcomes["theirs gave up" if expected is None else "compared"] += 1
        if expected is not None:
            assert [ours.encode(text) for text in PROBES] == expected
            assert ours.encode_batch(PROBES) == expected
            again = Tokenizer.from_json(ours.to_json())  # as a dataset keeps it
            assert [again.encode(text) for text in PROBES] == expected


def run(count: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(files=folders)
    def cases(files: dict[str, Any]) -> None:
        check(files, outcomes)

    cases()
    return outcomes


def test_any_folder_gives_transformers_ids_or_is_refused() -> None:
    outcomes = run(200)
    assert outcomes["compared"] > 40, outcomes
    assert not outcomes["refused in many lines"]


@pytest.mark.slow
def test_3000_folders_give_transformers_ids_or_are_refused() -> None:
    outcomes = run(3000)
    assert outcomes["compared"] > 600, outcomes
    assert not outcomes["refused in many lines"]
