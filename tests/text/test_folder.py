"""What stands beside a tokenizer's own files is followed, or refused by name; a file given by itself is read alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from myna import Tokenizer
from myna.errors import MynaError, TokenizerError
from myna.text import exchange
from myna.text.engines import RankModel
from myna.text.foreign import HuggingFaceModel, SentencePieceModel

pytest.importorskip("tokenizers")
TEXT = "It's 12345 tests of  spaces\n\n <tool> camel tools <s> naïve"
GPT2 = Tokenizer.train([TEXT * 20], 280, "gpt2")
GPT4 = Tokenizer.train([TEXT * 20], 280, "gpt4")


def folder(path: Path, tokenizer: Tokenizer | None = None, **beside: Any) -> Path:
    """A folder with vocab.json and merges.txt, or with a tokenizer.json, and other files."""
    if tokenizer is None:
        exchange.save_gpt2_files(GPT2.vocabulary, path)
        (path / "vocab.bpe").rename(path / "merges.txt")
        (path / "encoder.json").rename(path / "vocab.json")
    else:
        (path / "tokenizer.json").write_bytes(tokenizer.to_json())
    for name, content in beside.items():
        (path / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_prefix_space_beside_the_pair(tmp_path: Path) -> None:
    tok = Tokenizer.load(folder(tmp_path, tokenizer_config={"add_prefix_space": True}))
    assert tok.encode("tests") == GPT2.encode(" tests") != GPT2.encode("tests")
    assert not tok.is_exact


@pytest.mark.parametrize(
    "beside",
    [
        {"added_tokens": {"<tool>": 280}},
        {"tokenizer_config": {"added_tokens_decoder": {"280": {"content": "<tool>"}}}},
    ],
)
def test_added_tokens_beside_the_pair(beside: dict[str, Any], tmp_path: Path) -> None:
    tok = Tokenizer.load(folder(tmp_path, **beside))
    assert tok.encode("a<tool>b") == [*GPT2.encode("a"), 280, *GPT2.encode("b")]
    assert tok.decode([280]) == "<tool>"


def test_an_added_special_token_is_ours_to_run_and_text_never_becomes_it(tmp_path: Path) -> None:
    tok = Tokenizer.load(folder(tmp_path, special_tokens_map={"pad_token": "<tool>"}))
    assert isinstance(tok.model, RankModel)
    assert tok.special_tokens == {"<|endoftext|>": 279, "<tool>": 280}
    assert tok.encode("a<tool>") == GPT2.encode("a<tool>")
    assert tok.encode("a<tool>", allowed_special="all")[-1] == 280


def test_the_class_rules_over_the_file(tmp_path: Path) -> None:
    path = folder(tmp_path, GPT4, tokenizer_config={"tokenizer_class": "GPT2Tokenizer"})
    assert Tokenizer.load(path).vocabulary.pattern.name == "gpt2"
    assert Tokenizer.load(path / "tokenizer.json") == GPT4  # named itself, it is read alone
    folder(tmp_path, GPT4, tokenizer_config={"tokenizer_class": "Qwen2Tokenizer"})
    assert isinstance(Tokenizer.load(path).model, HuggingFaceModel)
    assert len(Tokenizer.load(path).encode("Cafe\u0301")) == len(
        GPT4.encode("Caf\u00e9")
    )  # it composes (NFC)
    folder(tmp_path, GPT4, tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast"})
    assert Tokenizer.load(path) == GPT4


def test_extra_special_tokens_in_a_list_and_by_name(tmp_path: Path) -> None:
    config = {"extra_special_tokens": {"tool_token": "<tool>"}, "additional_special_tokens": ["<s>"]}
    tok = Tokenizer.load(folder(tmp_path, GPT4, tokenizer_config=config))
    assert tok.special_tokens == {"<|endoftext|>": 279, "<tool>": 280, "<s>": 281}


def test_a_setting_of_any_name_is_only_a_setting(tmp_path: Path) -> None:
    special_map = {"by_name": "x", "by_key": 5, "pad_token": "<tool>"}
    tok = Tokenizer.load(folder(tmp_path, GPT4, special_tokens_map=special_map))
    assert tok.special_tokens == {"<|endoftext|>": 279, "<tool>": 280}


def test_the_class_of_the_model_type(tmp_path: Path) -> None:
    path = folder(tmp_path, GPT4, config={"model_type": "gpt2"})
    assert Tokenizer.load(path).vocabulary.pattern.name == "gpt2"
    folder(tmp_path, GPT4, config={"model_type": "myna-nanochat"})
    assert Tokenizer.load(path) == GPT4


def test_our_own_folders_are_read_as_before(tmp_path: Path) -> None:
    for tok in (GPT2, GPT4, Tokenizer.bytes(), Tokenizer.gpt2()):
        tok.save(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
        assert Tokenizer.load(tmp_path) == tok
        assert isinstance(Tokenizer.load(tmp_path).model, RankModel)


FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
REFUSED = {
    "a class of its own rule": ({"tokenizer_config": {"tokenizer_class": "BertTokenizer"}}, "BertTokenizer"),
    "a model type of its own": ({"config": {"model_type": "llama"}}, "class of llama"),
    "a program": ({"tokenizer_config": {"auto_map": {"AutoTokenizer": ["a.B", None]}}}, "auto_map"),
    "another file": ({"tokenizer_config": {"fast_tokenizer_files": ["tokenizer.4.json"]}}, "fast_tokenizer_files"),
    "a taken id": ({"tokenizer_config": {"added_tokens_decoder": {"7": {"content": "<new>"}}}}, "the id 7"),
    "an id too far": ({"added_tokens": {"<new>": 300}}, "the id 300"),
    "no id": ({"added_tokens": {"<new>": "x"}}, "'x' is not the id"),
    "no token": ({"tokenizer_config": {"added_tokens_decoder": {"280": 5}}}, "not an added token"),
    "no object": ({"tokenizer_config": "[1]"}, "tokenizer_config.json holds no JSON object"),
    "no JSON": ({"special_tokens_map": "{"}, "special_tokens_map.json is not JSON"),
    "nested": ({"config": "[" * 100_000}, "config.json is not JSON .its brackets are nested too deeply"),
    "no name": ({"tokenizer_config": {"tokenizer_class": 5}}, "tokenizer_class is no text"),
    "two readings": (
        {"tokenizer_config": {"tokenizer_class": "GPT2Tokenizer"}, "config": {"model_type": "phi3"}}, "phi3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_followed_is_named(name: str, tmp_path: Path) -> None:
    beside, message = REFUSED[name]
    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.load(folder(tmp_path, GPT4, **beside))
    assert "\n" not in str(caught.value)
    assert Tokenizer.load(tmp_path / "tokenizer.json") == GPT4


def test_a_pair_of_files_is_no_tokenizer_json(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"reads a tokenizer\.json, which is not there"):
        Tokenizer.load(folder(tmp_path, tokenizer_config=FAST))


def test_dropout_is_switched_off_and_named(tmp_path: Path) -> None:
    content = json.loads(GPT2.to_json())
    content["model"]["dropout"] = 0.9
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"dropout 0\.9.*switched off"):
        tok = Tokenizer.load(tmp_path)
    assert tok.encode(TEXT) == GPT2.encode(TEXT)
    assert tok == GPT2  # so a dataset keeps it without dropout, and says nothing more


def test_a_stated_id_that_its_library_would_change_is_refused() -> None:
    content = json.loads(GPT2.to_json())
    content["added_tokens"].append({**content["added_tokens"][0], "content": "<x>", "id": 400})
    with pytest.raises(TokenizerError, match="the added token '<x>' the id 400"):
        Tokenizer.from_json(json.dumps(content).encode())


def test_sentencepiece_folders(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 40),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=30,
        minloglevel=2,
    )
    config = tmp_path / "tokenizer_config.json"
    for said in ({}, {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}):
        config.write_text(json.dumps(said))
        assert isinstance(Tokenizer.load(tmp_path).model, SentencePieceModel)
    for said, message in (
        ({"tokenizer_class": "XLMRobertaTokenizer"}, "XLMRobertaTokenizer has a rule of its own"),
        ({"pad_token": "<pad>"}, "adds '<pad>'"),
        ({"added_tokens_decoder": {"5": {"content": "<s>"}}}, "the id 5"),
    ):
        config.write_text(json.dumps(said))
        with pytest.raises(TokenizerError, match=message):
            Tokenizer.load(tmp_path)
        assert Tokenizer.load(tmp_path / "tokenizer.model").encode("tests")


@pytest.mark.parametrize("name", ["tokenizer_config", "added_tokens", "special_tokens_map", "config"])
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("gone", "is a link to gone, which is not there"),
        ("itself", "symbolic links"),
        ("folder", "directory"),
    ],
)
def test_what_stands_beside_and_is_no_file_is_not_absent(
    tmp_path: Path, name: str, what: str, says: str
) -> None:
    path = folder(tmp_path, GPT4) / f"{name}.json"
    if what == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.name if what == "itself" else what)
    with pytest.raises(MynaError, match=says) as caught:
        Tokenizer.load(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rank_file_that_says_its_pattern_behind_a_dead_link_is_not_read_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "cl100k_base.tiktoken"
    GPT2.save(path)
    path.with_name(path.name + ".json").unlink()
    path.with_name(path.name + ".json").symlink_to("gone")
    with pytest.raises(MynaError, match="is a link to gone, which is not there"):
        Tokenizer.load(path)
