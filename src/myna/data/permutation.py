"""A keyed permutation of 0..n-1 that needs no table: a function computes where item i goes.

A table that shuffles n window numbers takes 8 bytes for each: 8 GB for a trillion tokens in windows of 1024. A Feistel
network computes such an order without a table. It splits a number's bits into two parts. Each round XORs a keyed hash
of one part onto the other part. A round that is done twice changes nothing, so it is one-to-one, whatever the hash. So
all rounds together are one-to-one on the 2**bits numbers. A number that lands at n or above goes through the network
again, until it lands below n (cycle walking). This follows a cycle of a permutation, so the result is a permutation of
0..n-1. From n = 3 on, 2**bits < 2n, so on average an item goes through less than one extra time.

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
    """Where each item of 0..n-1 goes in the permutation that `keys` defines.

    Shapes:
        items  (K,)       integers in [0, n), in any order
        keys   (ROUNDS,)  uint64, one for each round
    Returns:
        (K,) int64 in [0, n). All n items give all n numbers, each once.

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
