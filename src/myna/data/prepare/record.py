"""dataset.json: what a finished dataset says of itself, and what it must hold to be one."""

from collections.abc import Mapping, Sequence
from typing import Any

from myna.data.shards import FORMAT, id_dtype
from myna.data.split import SPLITS
from myna.errors import DataError
from myna.progress import speak
from myna.text.tokenizer import Tokenizer

LEFT_OUT = {
    "empty": "empty documents",
    "unanswered": "without an answer",
    "bad": "bad ones",
    "filtered": "left out by --where",
    "damaged": "damaged records",
}


def dataset_info(
    call: Mapping[str, Any],
    tokenizer: Tokenizer,
    files: Sequence[Mapping[str, Any]],
    splits: Mapping[str, Any],
    totals: Mapping[str, Any],
    archives: bool,
) -> dict[str, Any]:
    """dataset.json. Nothing in it depends on when, where, by how many workers or in how many parts it was made.

    Args:
        files: see `inputs.described`. splits: see `Assembler.finish`. totals: see `Assembler`.
        archives: whether there are web archives among the files.
    """
    return {
        "format": FORMAT,
        "tokenizer": tokenizer.sha256,
        "vocab_size": tokenizer.n_vocab,
        "dtype": id_dtype(tokenizer.n_vocab).name,
        "source": {key: value for key, value in call.items() if key != "tokenizer"}
        | {
            "files": files,
            "empty_documents": totals["empty"],
            "bad_documents": totals["bad"],
            "first_bad": totals["first_bad"],
            **({"unanswered": totals["unanswered"]} if call.get("conversations") else {}),
            **({"filtered_documents": totals["filtered"]} if call["where"] is not None else {}),
            **(
                {"damaged_records": totals["damaged"], "first_damaged": totals["first_damaged"]}
                if archives
                else {}
            ),
        },
        **splits,
    }


def require_documents(call: Mapping[str, Any], totals: Mapping[str, Any]) -> None:
    """Raises DataError where there is nothing to train on."""
    documents = sum(totals[name]["documents"] for name in SPLITS)
    if documents == 0:
        counts = ", ".join(
            f"{totals[count]:,} {words}"
            for count, words in LEFT_OUT.items()
            if totals[count] or count == "empty"
        )
        raise DataError(
            f"{', '.join(call['corpus'])}: no {'answer' if call.get('conversations') else 'text'} in it "
            f"({counts}); nothing was prepared"
        )
    if totals["train"]["documents"] == 0:
        raise DataError(
            f"all {documents} documents fell to validation; prepare more text or lower --val-fraction"
        )


def say_if_validation_is_one_document(totals: Mapping[str, Any]) -> None:
    """A loss over one text says little of the others. In a corpus of one document it can't be otherwise."""
    largest, name = totals["largest_val"]
    share = largest / max(totals["val"]["bytes"], 1)
    if share > 0.5:
        speak(
            f"one document of {name} is {100 * share:.0f}% of the validation split, so the validation loss is "
            "mostly its loss; split it into smaller documents, add text, or change --val-fraction"
        )
