"""`python -m myna`, which is how torchrun starts it."""

from myna.cli import entry

if __name__ == "__main__":
    entry()
