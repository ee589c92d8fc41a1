"""What the order of the data does to the loss curve: four sorted shards, read in sequence and shuffled.

    python benchmarks/order.py                              # some minutes; the runs are kept under data/order
    python benchmarks/order.py --picture docs/pictures/order.png

The network is `shakespeare-char`'s, and its ids are bytes. Each shard has one kind of this machine's text: English
documentation, Python source, HTML, C headers. All are equally long, so every hundredth step is an edge. Two runs of
`myna train` differ in `--order` alone, and go through the text twice. For each edge, the script prints the mean loss of
the 20 steps after it less that of the 20 before.
"""

import argparse
import hashlib
import itertools
import json
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from myna import Tokenizer
from myna.data.prepare import prepare
from myna.data.sources.documents import documents

BATCH_TOKENS, SHARD_STEPS, EPOCHS, AROUND = 4096, 100, 2, 20
SHARD_TOKENS = SHARD_STEPS * BATCH_TOKENS
# Files are cut into pieces of so many characters, so that a step of 4,096 bytes sees some four of them.
PIECE, PIECES_OF_A_FILE = 1000, 20
LIBRARY = Path(sysconfig.get_paths()["stdlib"])
KINDS = {
    "English": None,  # Python's documentation
    "Python": (LIBRARY, "*.py"),
    "HTML": (Path("/usr/share/doc"), "*.html"),
    "C headers": (Path("/usr/include"), "*.h"),
}
CALL = (
    f"--batch-tokens {BATCH_TOKENS} --micro-batch 64 --warmup-steps 20 --learning-rate 1e-3 --sample-every 0 "
    "--device cpu"
)
ORDERS = {"sequential": "#D55E00", "shuffled": "#0072B2"}


def texts(place: tuple[Path, str] | None) -> Iterator[str]:
    """Pieces of the files of a kind, none twice, in an order that the names of the files don't decide."""
    if place is None:
        found = list(documents(["pydoc"], val_fraction=0))
    else:
        folder, pattern = place
        found = [
            path.read_text("utf-8", errors="ignore")
            for path in sorted(folder.rglob(pattern))
            if path.is_file()
        ]
    pieces = {
        text[at : at + PIECE]
        for text in found
        for at in range(0, len(text) - PIECE, PIECE)[:PIECES_OF_A_FILE]
    }
    return iter(sorted(pieces, key=lambda text: hashlib.sha256(text.encode()).digest()))


def cut_to(documents: Iterable[str], n_ids: int) -> list[str]:
    """The first documents, the last of them cut, so that their bytes and an end-of-text id each are so many ids."""
    taken = []
    for text in documents:
        data = text.encode()[: n_ids - 1]
        whole = data.decode(errors="ignore")  # a character may be cut
        taken.append(whole + " " * (len(data) - len(whole.encode())))
        n_ids -= len(data) + 1
        if n_ids <= 1:
            return [*taken[:-1], taken[-1] + " " * n_ids]
    raise SystemExit("too little text on this machine for a shard")


def make_data(folder: Path) -> Path:
    """The dataset: four shards, a kind each."""
    out = folder / "data"
    if out.exists():
        return out
    files = []
    for kind, place in KINDS.items():
        files.append(str(folder / f"{kind}.jsonl"))
        lines = [json.dumps({"text": text}) + "\n" for text in cut_to(texts(place), SHARD_TOKENS)]
        Path(files[-1]).write_text("".join(lines))
    tokenizer = Tokenizer.bytes()
    dataset = prepare(files, out, tokenizer, val_fraction=0, shard_tokens=SHARD_TOKENS, workers=1)
    assert [shard.tokens for shard in dataset.train.shards] == [SHARD_TOKENS] * len(KINDS)
    return out


def losses(folder: Path, order: str) -> list[float]:
    """The training loss of each step."""
    steps = EPOCHS * len(KINDS) * SHARD_STEPS
    command = [sys.executable, "-m", "myna", "train", "shakespeare-char", *CALL.split(), "--order", order]
    command += ["--data", str(make_data(folder)), "--out", str(folder / order), "--steps", str(steps)]
    subprocess.run(command, check=True)
    records = map(json.loads, (folder / order / "metrics.jsonl").read_text().splitlines())
    return [record["train_loss"] for record in records if "train_loss" in record]


def jump(curve: Sequence[float], edge: int) -> float:
    """The mean of the 20 steps after an edge less that of the 20 before."""
    return statistics.fmean(curve[edge : edge + AROUND]) - statistics.fmean(curve[edge - AROUND : edge])


def draw(curves: dict[str, list[float]], edges: Sequence[int], path: Path) -> None:
    """Both curves in one picture, on white, so that it reads on a light and on a dark page."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 5), dpi=130, facecolor="white")
    ink, muted = "#1a1a1a", "#5f6670"
    for order, curve in curves.items():
        axes.plot(range(1, len(curve) + 1), curve, color=ORDERS[order], linewidth=1.1, label=order)
    last = len(next(iter(curves.values())))
    low = min(min(curve) for curve in curves.values())
    high = max(max(curve[AROUND:]) for curve in curves.values())
    axes.set_ylim(low - 0.1, high + 0.45)
    for edge in edges:
        axes.axvline(edge, color="#b9bec5", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    for number, kind in enumerate([*KINDS] * EPOCHS):
        middle = (number + 0.5) * SHARD_STEPS
        axes.text(middle, high + 0.3, kind, ha="center", va="center", color=muted, fontsize=10)
    axes.set_xlim(0, last)
    axes.set_xlabel(f"step ({BATCH_TOKENS:,} tokens each); dashed: the edges of the shards", color=muted)
    axes.set_ylabel("training loss, nats per byte", color=muted)
    axes.set_title("The same text in two orders", loc="left", color=ink, fontweight="bold")
    axes.tick_params(length=0, labelcolor=muted)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, loc="lower left", labelcolor=ink)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Trains both, prints the jumps and draws the curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("data/order"))
    parser.add_argument("--picture", type=Path, default=Path("data/order/order.png"))
    call = parser.parse_args()
    call.folder.mkdir(parents=True, exist_ok=True)
    curves = {order: losses(call.folder, order) for order in ORDERS}
    edges = range(SHARD_STEPS, EPOCHS * len(KINDS) * SHARD_STEPS, SHARD_STEPS)
    print(f"{'edge':>5}  {'between':<22}" + "".join(f"{order:>12}" for order in curves))
    jumps: dict[str, list[float]] = {
        order: [jump(curve, edge) for edge in edges] for order, curve in curves.items()
    }
    pairs = itertools.pairwise([*KINDS] * EPOCHS)
    for number, (edge, (before, after)) in enumerate(zip(edges, pairs, strict=True)):
        cells = "".join(f"{jumps[order][number]:>+12.3f}" for order in curves)
        print(f"{edge:>5}  {before + ' to ' + after:<22}" + cells)
    print(f"{'mean':>5}  {'':<22}" + "".join(f"{statistics.fmean(jumps[order]):>+12.3f}" for order in curves))
    draw(curves, edges, call.picture)
    print(call.picture)


if __name__ == "__main__":
    main()
