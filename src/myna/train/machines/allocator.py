"""The C library's allocator, told to keep what is freed.

glibc gives a large buffer back to the kernel as soon as it is freed. A training step on a CPU frees and asks for
gigabytes, so every step would pay for hundreds of thousands of page faults: a quarter of the lecture's step at
GPT-2 124M, measured here (docs/performance.md). Kept memory is found again by the next step.
"""

import ctypes

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LARGEST = 2**31 - 1  # mallopt takes an int


def keep_freed_memory() -> bool:
    """Tells glibc not to give memory back; True where it obeys, False where the allocator is another one.

    Memory that the process once had stays with it until it ends.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST))
