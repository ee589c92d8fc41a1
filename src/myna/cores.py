"""How many processes can compute at once here."""

import os


def usable_cores() -> int:
    """The processors that the system lets this process use; all of the machine's where it does not say, as on macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
