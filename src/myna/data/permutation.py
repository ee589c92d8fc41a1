"""A keyed permutation of 0..n-1 that needs no table: where does item i go? And nothing else is remembered.

Shuffling n window numbers with a table costs 8 bytes each: 8 GB for a trillion tokens. A Feistel network gives
the same kind of order as a function. It splits a number's bits into two parts and, round by round, XORs onto one
part a keyed hash of the other. Each round undoes itself, so the whole is one-to-one on the 2**bits numbers,
whatever the hash. Numbers that land at n or above are sent through again (cycle walking) until they land below:
following a cycle of a permutation keeps it a permutation. As 2**bits < 2n, that is less than one extra trip on average.

Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002 (cycle walking; Feistel).
"""

import numpy as np

ROUNDS = 8


def mix(values: np.ndarray) -> np.ndarray:
    """Spreads each bit of uint64 values over all 64 (Stafford's variant 13 of the MurmurHash3 finalizer)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def permute(items: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """Where each item of 0..n-1 goes under the permutation that `keys` names.

    Shapes:
        items  (K,)       integers in [0, n), in any order
        keys   (ROUNDS,)  uint64, one a round
    Returns:
        (K,) int64 in [0, n); all items in, all items out, once each.

    >>> keys = np.arange(ROUNDS, dtype=np.uint64)
    >>> sorted(permute(np.arange(10), 10, keys).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    bits = max(2, (n - 1).bit_length())
    low_bits = np.uint64(bits // 2)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    low_mask = np.uint64((1 << (bits // 2)) - 1)

    def network(values: np.ndarray) -> np.ndarray:
        high, low = values >> low_bits, values & low_mask
        for number, key in enumerate(keys):
            if number % 2:
                low = low ^ (mix(high + key) & low_mask)
            else:
                high = high ^ (mix(low + key) & high_mask)
        return (high << low_bits) | low

    result = network(np.asarray(items).astype(np.uint64))
    while (outside := result >= np.uint64(n)).any():
        result[outside] = network(result[outside])
    return result.astype(np.int64)
