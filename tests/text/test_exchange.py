"""Each file that is written is read back as the same tokenizer, and what is no tokenizer is refused in one line."""

import base64
import json
from pathlib import Path

import pytest

from myna import Tokenizer
from myna.errors import MynaError, TokenizerError
from myna.files import sha256_bytes
from myna.text import exchange, gpt2, ranks
from myna.text.engines import RankModel
from myna.text.foreign import HuggingFaceModel

TEXTS = ["It's 12345678901 a test.  Of  spaces\n\n\tand “quotes” – naïve 中文 😀!! <|endoftext|> " * 20]
PROBE = "It's 1234567 tests.   \n\n x  \n<|endoftext|> naïve 中文😀\r\n" * 3 + "   "


def trained(pattern: str) -> Tokenizer:
    return Tokenizer.train(TEXTS, 300, pattern)


TOKENIZERS = {
    "gpt2": Tokenizer.gpt2,
    "bytes": Tokenizer.bytes,
    "trained-gpt2": lambda: trained("gpt2"),
    "trained-gpt4": lambda: trained("gpt4"),
    "own-pattern": lambda: trained(r"\p{L}+|\p{N}{1,2}|\s|[^\s\p{L}\p{N}]+"),
}


@pytest.fixture(params=TOKENIZERS)
def tok(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]()


def assert_same(a: Tokenizer, b: Tokenizer) -> None:
    assert a.vocabulary == b.vocabulary
    assert a.vocabulary.merges == b.vocabulary.merges
    assert a.sha256 == b.sha256
    assert a.encode(PROBE) == b.encode(PROBE)
    assert a.eot == b.eot


def test_tokenizer_json(tok: Tokenizer, tmp_path: Path) -> None:
    tok.save(tmp_path / "t")
    assert_same(tok, Tokenizer.load(tmp_path / "t"))
    assert_same(tok, Tokenizer.load(tmp_path / "t" / "tokenizer.json"))
    assert_same(tok, Tokenizer.open(str(tmp_path / "t")))
    assert_same(tok, Tokenizer.from_json(tok.to_json()))
    assert (tmp_path / "t" / "tokenizer.json").read_bytes() == tok.to_json()
    tok.save(tmp_path / "t")  # over itself


def test_rank_file(tok: Tokenizer, tmp_path: Path) -> None:
    tok.save(tmp_path / "t.tiktoken")
    assert_same(tok, Tokenizer.load(tmp_path / "t.tiktoken"))
    assert_same(tok, Tokenizer.load(tmp_path))


def test_config_names_class_and_end_of_text(tmp_path: Path) -> None:
    Tokenizer.gpt2().save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_bytes())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["eos_token"] == "<|endoftext|>"


def test_gpt2_files_are_openais_byte_for_byte(tmp_path: Path) -> None:
    exchange.save_gpt2_files(Tokenizer.gpt2().vocabulary, tmp_path)
    assert sha256_bytes((tmp_path / "vocab.bpe").read_bytes()) == gpt2.VOCAB_BPE_SHA256
    assert sha256_bytes((tmp_path / "encoder.json").read_bytes()) == gpt2.ENCODER_JSON_SHA256
    assert_same(Tokenizer.gpt2(), Tokenizer.load(tmp_path))
    (tmp_path / "vocab.bpe").rename(tmp_path / "merges.txt")  # as the hub calls them
    (tmp_path / "encoder.json").rename(tmp_path / "vocab.json")
    assert_same(Tokenizer.gpt2(), Tokenizer.load(tmp_path))


def test_gpt2_files_of_a_trained_vocabulary(tmp_path: Path) -> None:
    exchange.save_gpt2_files(trained("gpt2").vocabulary, tmp_path)
    assert_same(trained("gpt2"), Tokenizer.load(tmp_path))
    with pytest.raises(TokenizerError, match="only hold vocabularies of GPT-2's pattern"):
        exchange.save_gpt2_files(trained("gpt4").vocabulary, tmp_path)


def test_gpt2_files_that_do_not_belong_together(tmp_path: Path) -> None:
    exchange.save_gpt2_files(trained("gpt2").vocabulary, tmp_path)
    lines = (tmp_path / "vocab.bpe").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "vocab.bpe").write_text("".join([lines[0], *lines[2:], lines[1]]), encoding="utf-8")
    with pytest.raises(TokenizerError, match="belong together"):
        Tokenizer.load(tmp_path)


def test_published_rank_files_bring_their_pattern(tmp_path: Path) -> None:
    tok = trained("gpt4")
    tok.save(tmp_path / "t.tiktoken")
    (tmp_path / "t.tiktoken").rename(tmp_path / "cl100k_base.tiktoken")
    loaded = Tokenizer.load(tmp_path / "cl100k_base.tiktoken")
    assert (loaded.n_vocab, loaded.eot, loaded.vocabulary.pattern.name) == (100277, 100257, "gpt4")
    assert loaded.encode(PROBE) == tok.encode(PROBE)
    with pytest.raises(TokenizerError, match="outside the vocabulary"):
        loaded.decode([5000])  # a free id
    assert_same(loaded, Tokenizer.from_json(loaded.to_json()))


@pytest.mark.parametrize(
    "beside",
    [
        "",
        "[]",
        '{"pattern": "gpt2"}',
        '{"pattern": 2, "special_tokens": {}}',
        '{"pattern": "gpt2", "special_tokens": {"<|endoftext|>": "256"}}',
    ],
)
def test_a_damaged_file_beside_the_ranks(beside: str, tmp_path: Path) -> None:
    (tmp_path / "t.tiktoken").write_bytes(rank_lines())
    (tmp_path / "t.tiktoken.json").write_text(beside)
    with pytest.raises(TokenizerError, match="expected pattern and special_tokens"):
        Tokenizer.load(tmp_path / "t.tiktoken")


def test_ranks_without_a_pattern(tmp_path: Path) -> None:
    trained("gpt4").save(tmp_path / "t.tiktoken")
    (tmp_path / "t.tiktoken.json").unlink()
    with pytest.raises(TokenizerError, match="holds ranks but no pattern"):
        Tokenizer.load(tmp_path / "t.tiktoken")


def rank_lines(*extra: tuple[bytes, int]) -> bytes:
    ranks = [*((bytes([byte]), byte) for byte in range(256)), *extra]
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks)


def test_a_token_that_no_merge_makes_survives(tmp_path: Path) -> None:
    # "abc" has no half among the tokens: tiktoken gives it only to the pre-token "abc".
    vocabulary = ranks.from_ranks(rank_lines((b"abc", 256)), "gpt2", {"<|endoftext|>": 257}, "t")
    tok = Tokenizer(RankModel(vocabulary), "t")
    assert not vocabulary.is_complete
    assert tok.encode("abc") == [256]
    assert tok.encode("abcd") == list(b"abcd")
    assert tok.encode_arrays(["abc", "abcd"])[0].tolist() == [256, *b"abcd"]
    tok.save(tmp_path)
    assert_same(tok, Tokenizer.load(tmp_path))
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [theirs.encode(text).ids for text in ("abc", "abcd")] == [[256], list(b"abcd")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (rank_lines()[20:], "lacks|base64"),
        (b"".join(rank_lines().splitlines(keepends=True)[1:]), "lacks 1 of the 256 single bytes"),
        (rank_lines((b"ab", 255)), "the rank 255 is there twice"),
        (rank_lines((b"a", 256)), "one token under two ids"),
        (rank_lines((b"ab", 257), (b"abc", -1)), "expected a base64 token and its rank"),
        (b"not a rank file", "line 1: expected a base64 token"),
        (b"", "is no rank file"),
        (b"YQ== 4000000000\n", "is no rank file"),
        (rank_lines((b"ab", 256)), "special token"),
    ],
)
def test_damaged_rank_files(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.tiktoken"
    path.write_bytes(data)
    path.with_name("t.tiktoken.json").write_text(
        '{"pattern": "gpt2", "special_tokens": {"<|endoftext|>": 256}}'
    )
    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.load(path)
    assert "\n" not in str(caught.value)


def changed(**changes: object) -> bytes:
    content = json.loads(trained("gpt2").to_json())
    for key, value in changes.items():
        section, _, inner = key.partition("__")
        if inner:
            content[section][inner] = value
        else:
            content[section] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tokenizer.json", b""),
        ("tokenizer.json", b"\xff\xfe\x00"),
        ("tokenizer.json", b"[1, 2]"),
        ("tokenizer.json", b'{"model": 3}'),
        ("tokenizer.json", b'{"model": {"type": "BPE"}}'),
        ("tokenizer.json", b"[" * 100_000),
        ("tokenizer.json", changed(post_processor=5)),
        ("tokenizer.json", changed(added_tokens=[3])),
        ("tokenizer.json", changed(model__vocab=["a"])),
        ("tokenizer.json", changed(model__vocab=None)),
        ("tokenizer.json", b'{"format": "sentencepiece", "model": "*"}'),
        ("t.txt", b"hello"),
        ("t.tiktoken.json", b"{}"),
    ],
)
def test_files_that_are_no_tokenizer(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_places_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no tokenizer in"):
        Tokenizer.load(tmp_path)
    with pytest.raises(TokenizerError, match="cannot read"):
        Tokenizer.load(tmp_path / "absent.json")


def test_nothing_is_written_where_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MynaError, match="cannot write"):
        Tokenizer.bytes().save(tmp_path / "file")


def test_what_is_not_our_rule_goes_to_its_own_library() -> None:
    pytest.importorskip("tokenizers")
    content = json.loads(trained("gpt2").to_json())
    merges = content["model"]["merges"]
    others = [
        changed(normalizer={"type": "NFC"}),
        changed(
            pre_tokenizer={
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            }
        ),
        changed(model__merges=[merges[1], merges[0], *merges[2:]]),
        changed(added_tokens=[{**content["added_tokens"][0], "special": False}]),
    ]
    for data in others:
        assert isinstance(exchange.read_json(data, "t"), HuggingFaceModel)
    same = changed(model__merges=[merge.split(" ") for merge in merges])  # the newer way to write merges
    assert isinstance(exchange.read_json(same, "t"), RankModel)


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "not JSON"), ("[]", "it has no model"), ('{"model": {}, "added_tokens": 1}', "no list of tokens")],
)
def test_what_is_no_tokenizer_json_says_what_to_do(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError) as refused:
        Tokenizer.load(tmp_path)
    assert says in str(refused.value)
    assert str(refused.value).endswith("; copy or download the file again, or give another tokenizer")
