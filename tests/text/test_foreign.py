"""Tokenizers of other makes keep their ids, and still let no special token in."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from myna import Tokenizer
from myna.errors import TextError, TokenizerError
from myna.text.foreign import HuggingFaceModel, SentencePieceModel, no_panic

TEXTS = [
    "The quick brown fox jumps over the lazy dog. 12345 naïve café 中文 😀",
    "special <s> </s> <|im_start|> text",
] * 40
PROBES = [
    "The fox, 42 dogs!  two spaces",
    "naïve 中文 😀",
    "",
    " lead",
    "<s></s><|im_start|><|endoftext|>",
    "a\nb\tc",
]


@pytest.fixture(scope="module")
def llama_like() -> bytes:
    """A BPE of Llama 2's make: metaspace, byte fallback, a template that adds <s>."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, normalizers, processors, trainers

    tok = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=specials, show_progress=False)
    tok.train_from_iterator(TEXTS, trainer)
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tok.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    content = json.loads(tok.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < 3]
    control = {
        "id": len(content["model"]["vocab"]),
        "content": "<|im_start|>",
        "special": False,
        "normalized": False,
    }
    content["added_tokens"].append({**content["added_tokens"][0], **control})
    return json.dumps(content).encode()


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(folder / "tokenizer"), vocab_size=400, model_type="bpe",
        byte_fallback=True, minloglevel=2, normalization_rule_name="identity", remove_extra_whitespaces=False,
    )  # fmt: skip
    return folder / "tokenizer.model"


def test_hugging_face(llama_like: bytes, tmp_path: Path) -> None:
    import tokenizers

    theirs: Any = tokenizers.Tokenizer.from_str(llama_like.decode())
    (tmp_path / "tokenizer.json").write_bytes(llama_like)
    tok = Tokenizer.load(tmp_path)
    assert isinstance(tok.model, HuggingFaceModel)
    for text in PROBES[:4]:
        assert tok.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    assert tok.eot == 2
    assert tok.special_tokens["<|im_start|>"] == tok.n_vocab - 1
    check_face(tok)
    tok.save(tmp_path / "copy")
    assert (tmp_path / "copy" / "tokenizer.json").read_bytes() == llama_like


def test_sentencepiece(sentencepiece_model: Path, tmp_path: Path) -> None:
    import sentencepiece

    theirs: Any = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    tok = Tokenizer.load(sentencepiece_model)
    assert isinstance(tok.model, SentencePieceModel)
    for text in PROBES:
        assert tok.encode(text) == theirs.encode(text)
    assert tok.eot == theirs.eos_id()
    check_face(tok)
    tok.save(tmp_path / "copy")
    copy = Tokenizer.load(tmp_path / "copy")
    assert copy.sha256 == tok.sha256
    assert [copy.encode(text) for text in PROBES] == [tok.encode(text) for text in PROBES]
    assert (
        Tokenizer.load(sentencepiece_model.parent).sha256 == tok.sha256
    )  # a directory with a tokenizer.model


def check_face(tok: Tokenizer) -> None:
    specials = set(tok.special_tokens.values())
    for text in PROBES:
        ids = tok.encode(text)
        assert not specials & set(ids)
        assert tok.decode(ids) == text
        stream = tok.stream_decoder()
        assert "".join(stream.feed([i]) for i in ids) + stream.finish() == text
    assert tok.encode_batch(PROBES) == [tok.encode(text) for text in PROBES]
    assert tok.encode("a</s>b", allowed_special={"</s>"}).count(tok.eot) == 1
    copy = pickle.loads(pickle.dumps(tok))
    assert copy.encode(PROBES[0]) == tok.encode(PROBES[0])
    assert tok.id_bytes() is None  # these put a space before the text, and drop it again
    unknown = tok.special_tokens["<unk>"]
    text = tok.text_ids()
    assert [i for i in range(tok.n_vocab) if not text[i]] == sorted(specials - {unknown})
    with pytest.raises(TokenizerError, match="outside the vocabulary"):
        tok.decode([tok.n_vocab])
    with pytest.raises(TokenizerError, match="not byte-level BPE"):
        tok.vocabulary  # noqa: B018


def test_files_their_libraries_refuse(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    pytest.importorskip("tokenizers")
    for name, data in (("t.model", b"junk"), ("tokenizer.json", b'{"model": {"type": "Unheard"}}')):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(TokenizerError) as caught:
            Tokenizer.load(tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / "t.model").write_bytes(b"")
    with pytest.raises(TokenizerError):
        Tokenizer.load(tmp_path / "t.model")


@pytest.mark.parametrize("library", ["tokenizers", "sentencepiece"])
def test_a_library_that_is_not_installed(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(TokenizerError, match=f"needs the library {library}: pip install"):
        (HuggingFaceModel if library == "tokenizers" else SentencePieceModel)(b"{}", "t")


def test_a_pattern_their_engine_refuses() -> None:
    pytest.importorskip("tokenizers")
    content = json.loads(Tokenizer.bytes().to_json())
    split = {"type": "Split", "pattern": {"Regex": "(ab"}, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"] = split
    with pytest.raises(TokenizerError, match="is no tokenizer that the library tokenizers can read"):
        Tokenizer.from_json(json.dumps(content).encode())


def lossy_tokenizers() -> dict[str, bytes]:
    """WordPiece, a BPE with `</w>`, and WordLevel: none of them keeps all of a text."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    made = {
        "WordPiece": (models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer),
        "</w>": (models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"), trainers.BpeTrainer),
        "WordLevel": (models.WordLevel(unk_token="[UNK]"), trainers.WordLevelTrainer),
    }
    files = {}
    for name, (model, trainer) in made.items():
        tok = tokenizers.Tokenizer(model)
        tok.normalizer, tok.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
        tok.decoder = decoders.WordPiece() if name == "WordPiece" else decoders.BPEDecoder()
        extra = {"end_of_word_suffix": "</w>"} if name == "</w>" else {}
        specials = ["[UNK]", "[SEP]"]
        kind = trainer(vocab_size=200, special_tokens=specials, show_progress=False, **extra)
        tok.train_from_iterator(["The quick brown fox jumps over the lazy dog"] * 9, kind)
        files[name] = tok.to_str().encode()
    return files


@pytest.mark.parametrize("name", ["WordPiece", "</w>", "WordLevel"])
def test_no_id_of_a_tokenizer_that_changes_text_has_bytes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(lossy_tokenizers()[name])
    with pytest.warns(UserWarning, match=r"tokenizer\.json changes text: its ids don't always decode"):
        tok = Tokenizer.open(str(path))
    assert not tok.is_exact
    assert tok.id_bytes() is None
    text = tok.text_ids()
    assert text[tok.special_tokens["[UNK]"]]  # text stood there
    assert not text[tok.eot]
    assert tok.special_tokens["[UNK]"] in tok.encode("中")
    with pytest.raises(TextError, match="no UTF-8"):
        tok.encode_bytes(b"\xff")


def test_byte_level_bpe_of_another_pattern_is_exact() -> None:
    pytest.importorskip("tokenizers")
    content = json.loads(Tokenizer.train([*TEXTS], 300).to_json())
    split = {"type": "Split", "pattern": {"Regex": r"\p{N}"}, "behavior": "Isolated", "invert": False}
    bytes_after = {**content["pre_tokenizer"], "use_regex": True}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, bytes_after]}
    content["added_tokens"].append(
        {**content["added_tokens"][0], "id": 300, "content": " é", "special": False}
    )
    tok = Tokenizer.from_json(json.dumps(content).encode())
    assert isinstance(tok.model, HuggingFaceModel)
    assert tok.is_exact
    lengths = tok.id_bytes()
    assert lengths is not None
    for text in (*PROBES, "a é b", "\u0301 12345  \n"):
        ids = tok.encode(text)
        assert tok.decode(ids) == text
        assert tok.decode_bytes(ids) == text.encode()
        assert sum(lengths[ids]) == len(text.encode())
    dropped = json.loads(json.dumps(content))
    dropped["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"
    for change in (dropped, {**content, "normalizer": {"type": "NFC"}}):
        assert not Tokenizer.from_json(json.dumps(change).encode()).is_exact


class PanicException(BaseException):
    pass


@pytest.mark.parametrize(
    ("message", "shown"), [("", "PanicException"), ("\n  out of stack\nand more", "out of stack")]
)
def test_a_panic_of_any_text_is_an_error_of_ours(message: str, shown: str) -> None:
    with pytest.raises(TextError) as caught, no_panic("the text"):
        raise PanicException(message)
    assert str(caught.value) == f"the text: its library gave up ({shown})"
