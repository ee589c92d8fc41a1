"""A sentencepiece vocabulary, learned by its own library with the choices of Llama 2's tokenizer.

Here for comparison: our own BPE is in training.py. Sentencepiece merges characters, not bytes. A character that the
text has too rarely for a piece of its own is spelled in bytes (`<0xF0>`).
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator

from myna.errors import TokenizerError, first_line
from myna.signals import answering
from myna.text.foreign import missing

# <unk>, <s>, </s>, and a piece for each byte.
SMALLEST = 3 + 256
# Of all characters of the text, the share that gets pieces; the rest is spelled in bytes.
CHARACTER_COVERAGE = 0.99995
# The library skips longer lines, and its own limit of 4,192 bytes would lose text.
LONGEST_LINE_BYTES = 1 << 30


def learn_sentencepiece(
    texts: Iterable[str], vocab_size: int, threads: int = 1, on_bytes: Callable[[int], None] | None = None
) -> bytes:
    """The bytes of a `.model` file with `vocab_size` pieces.

    The library reads line by line, so no piece holds the end of a line. It skips a line with a NUL or with its sign for
    a space, U+2581. It holds all lines in memory.

    Args:
        threads: of the library; the result is the same for any number.
        on_bytes: called with the UTF-8 bytes of each text that was read.
    Raises:
        TokenizerError: the library is not installed; the size is too small for the text's characters, or larger than
            what the text can fill.
    """
    try:
        # Here and not above: it is optional.
        from sentencepiece import SentencePieceTrainer
    except ImportError:
        raise missing("sentencepiece") from None
    if vocab_size < SMALLEST:
        raise TokenizerError(
            f"a vocabulary of {vocab_size} is too small: <unk>, <s>, </s> and the 256 bytes make {SMALLEST}; "
            f"give a size of {SMALLEST} or more"
        )
    failed: list[BaseException] = []
    n_lines = 0

    def lines() -> Iterator[str]:
        nonlocal n_lines
        try:
            for text in texts:
                for line in text.splitlines():
                    n_lines += bool(line)
                    yield line
                if on_bytes:
                    on_bytes(len(text.encode("utf-8")))
        except BaseException as error:  # the library would make a RuntimeError of it
            failed.append(error)
            raise

    model = io.BytesIO()
    try:
        answering(
            lambda: SentencePieceTrainer.train(
                sentence_iterator=lines(),
                model_writer=model,
                model_type="bpe",
                vocab_size=vocab_size,
                byte_fallback=True,
                split_digits=True,
                allow_whitespace_only_pieces=True,
                # Text stays as it is: no Unicode normalization, no space is dropped.
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                character_coverage=CHARACTER_COVERAGE,
                max_sentence_length=LONGEST_LINE_BYTES,
                num_threads=threads,
                minloglevel=2,
            )
        )
    except (RuntimeError, OSError) as error:
        if failed:
            raise failed[0] from None
        if not n_lines:
            raise TokenizerError(
                "there is no text to learn from; give at least one line that is not empty"
            ) from None
        raise TokenizerError(_reason(first_line(error), vocab_size)) from None
    return model.getvalue()


def _reason(said: str, vocab_size: int) -> str:
    """What the library says of a size, in our words; anything else in its own.

    >>> _reason("INTERNAL: t.cc(7) [...] Vocabulary size too high (900). Please set it to a value <= 345.", 900)
    'a vocabulary of 900 is larger than this text can fill: give --vocab-size 345 or less'
    """
    if needed := re.search(r"smaller than required_chars\. \d+ vs (\d+)", said):
        return (
            f"a vocabulary of {vocab_size} is too small for the characters of this text: "
            f"give --vocab-size {needed[1]} or more"
        )
    if most := re.search(r"too high .* <= (\d+)", said):
        return (
            f"a vocabulary of {vocab_size} is larger than this text can fill: "
            f"give --vocab-size {most[1]} or less"
        )
    return f"sentencepiece: {said}"
