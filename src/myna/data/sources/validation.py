"""The rule that sends text to validation: a document by its hash, the only document of a corpus by its last part."""

import hashlib
import mmap


def document_hash(data: bytes) -> "hashlib.blake2b":
    """The hash that decides a document's side. A large document's bytes may come in parts, by its `update`."""
    return hashlib.blake2b(data, digest_size=8)


def split_of(digest: "hashlib.blake2b", val_fraction: float) -> str:
    """ "train" or "val", from a document's hash.

    >>> split_of(document_hash(b"a document"), 0.0), split_of(document_hash(b"a document"), 0.999)
    ('train', 'val')
    """
    return "val" if int.from_bytes(digest.digest(), "big") < int(val_fraction * 2**64) else "train"


def validation_cut(data: "bytes | mmap.mmap", val_fraction: float) -> int:
    """Where the validation part of a corpus of one document begins: a line start, else the start of a character.

    Args:
        data: UTF-8.
        val_fraction: the share from there to the end, about.
    Returns:
        a position in bytes; the length if the fraction is 0.

    >>> validation_cut(b"one\\ntwo\\nthree\\n", 0.8), validation_cut(b"one\\ntwo\\nthree\\n", 0.1)
    (4, 8)
    """
    size = len(data)
    target = size - int(size * val_fraction)
    if target >= size:
        return size
    after = data.find(b"\n", max(target - 1, 0)) + 1
    if 0 < after < size:
        return after
    before = data.rfind(b"\n", 0, max(target - 1, 0)) + 1
    if before > 0:
        return before
    while target > 0 and data[target] & 0xC0 == 0x80:
        target -= 1
    return target
