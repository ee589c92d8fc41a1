"""The flags that every process of this folder takes."""

import argparse


def read(description: str | None, **paths: str) -> argparse.Namespace:
    """Reads --device and --tiny, and a flag for each of `paths`, with its help."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny network, to try the script itself")
    for name, words in paths.items():
        parser.add_argument(f"--{name}", required=True, help=words)
    return parser.parse_args()
