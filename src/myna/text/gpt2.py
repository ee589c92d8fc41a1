"""GPT-2's vocabulary: OpenAI's own merge list, bundled, and checked by its published hash.

`vocab.bpe` alone decides everything: ids 0 to 255 are the bytes in GPT-2's order, then comes one id per merge, and
`<|endoftext|>` last. OpenAI's `encoder.json` is the same table written out; tests rebuild it byte for byte and hold it
to its own published hash.
"""

from collections.abc import Sequence
from importlib import resources

from myna.errors import TokenizerError
from myna.files import sha256_bytes
from myna.text.patterns import GPT2
from myna.text.vocabulary import END_OF_TEXT, Merge, Vocabulary

VOCAB_BPE_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
ENCODER_JSON_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"


def byte_alphabet() -> dict[int, str]:
    """byte -> the printable character that stands for it in GPT-2's files, in the order of GPT-2's ids.

    Printable Latin-1 characters stand for themselves; the other bytes take the characters from U+0100 on, so that
    a space is "Ġ" and a newline "Ċ".
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


BYTE_TO_CHARACTER = byte_alphabet()
CHARACTER_TO_BYTE = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}


def to_bytes(spelled: str) -> bytes:
    """The bytes of a token as GPT-2's files spell it.

    Raises:
        KeyError: a character that stands for no byte.

    >>> to_bytes("Ġhello")
    b' hello'
    """
    return bytes(CHARACTER_TO_BYTE[character] for character in spelled)


def is_spelled(text: str) -> bool:
    """Whether a string can be a token as GPT-2's files spell it."""
    return all(character in CHARACTER_TO_BYTE for character in text)


def spell(token: bytes) -> str:
    """A token in the characters of GPT-2's files.

    >>> spell(b" hi")
    'Ġhi'
    """
    return "".join(BYTE_TO_CHARACTER[byte] for byte in token)


def vocabulary() -> Vocabulary:
    """GPT-2's vocabulary, 50,257 ids.

    Raises:
        TokenizerError: the bundled file is not the published one.
    """
    data = resources.files("myna.text").joinpath("assets/gpt2_vocab.bpe").read_bytes()
    if sha256_bytes(data) != VOCAB_BPE_SHA256:
        raise TokenizerError("the bundled GPT-2 vocabulary is damaged (SHA-256 differs); install myna again")
    return from_merges(read_merges(data))


def read_merges(data: bytes) -> list[Merge]:
    """The merges in a `vocab.bpe` or `merges.txt`: a version line, then two spelled tokens a line.

    Raises:
        ValueError, KeyError: it is not such a file.
    """
    lines = data.decode("utf-8").splitlines()
    if not lines or not lines[0].startswith("#version"):
        raise ValueError("no version line")
    pairs = (line.split(" ") for line in lines[1:] if line)
    return [(to_bytes(left), to_bytes(right)) for left, right in pairs]


def from_merges(merges: Sequence[Merge]) -> Vocabulary:
    """The vocabulary whose ids are the bytes in GPT-2's order, one per merge, and end of text."""
    tokens = (*(bytes([byte]) for byte in BYTE_TO_CHARACTER), *(left + right for left, right in merges))
    return Vocabulary(GPT2, tokens, {END_OF_TEXT: len(tokens)}, tuple(merges))
