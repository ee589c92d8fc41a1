"""The end of `myna train`: the report, a yardstick, and what to try next."""

from myna.commands.train_call import Say
from myna.data.mixture import Mixture
from myna.errors import MynaError, OutputError, first_line
from myna.evaluate.compression import bz2_bits_per_byte
from myna.evaluate.report import report
from myna.model.checkpoint import list_checkpoints
from myna.paths import quoted
from myna.run import Run
from myna.store.here import address_of
from myna.text.tokenizer import Tokenizer


def finish(run: Run, data: Mixture, tokenizer: Tokenizer, say: Say) -> None:
    """Draws the report, compares with bzip2, and says where everything lies and what to try next.

    Raises:
        OutputError: the report can't be drawn or written.
    """
    try:
        report([run.path], run.report_path)
    except MynaError:
        raise
    except Exception as error:  # of the library that draws: its fonts, its memory
        raise OutputError(
            f"cannot draw {run.report_path}: {type(error).__name__}: {first_line(error)}; "
            f"once that is mended, `myna report {quoted(run.path)}` draws it"
        ) from error
    chats, first = data.has_conversations, data.sources[0].dataset
    for sample in run.samples()[-1:]:
        say(f"\n{run.path} {'answers' if chats else 'writes on'}:\n\n{sample['prompt']}{sample['text']}\n")
    reached = [record["val_bits_per_byte"] for record in run.metrics() if "val_bits_per_byte" in record]
    # Of conversations only the answers are scored, and of a mixture each text has its share: all of the text
    # compressed is no yardstick.
    yardstick = bz2_bits_per_byte(first.val, tokenizer) if data.is_one and not chats else None
    if reached and yardstick:
        say(f"bits per byte of the validation text ({yardstick[1]:,} bytes):")
        say(f"  this model  {reached[-1]:.3f}\n  bz2 -9      {yardstick[0]:.3f}\n")
    checkpoint = list_checkpoints(run.checkpoints)[0]
    # Other projects' data has no tokenizer beside it; then the checkpoint has one.
    tokenizer_path = first.tokenizer_path or checkpoint / "tokenizer.json"
    if tokenizer_path.exists():
        say(f"tokenizer   {address_of(tokenizer_path)}")
    for source in data.sources:
        say(f"data        {address_of(source.dataset.path)}")
    say(f"checkpoint  {checkpoint}")
    say(f"metrics     {run.metrics_path}")
    if run.samples_path.exists():
        say(f"samples     {run.samples_path}")
    say(f"report      {run.report_path}")
    say(f"            {run.page_path}\n")
    say("what to try next:")
    model, dataset = quoted(run.path), quoted(address_of(first.path))
    say(f"  myna chat {model}" if chats else f'  myna sample {model} --prompt "The "')
    if first.val.n_tokens > 1:
        say(f"  myna eval {model} --task val{'' if data.is_one else f' --data {dataset}'}")
    say(f"  myna data show {dataset}")
