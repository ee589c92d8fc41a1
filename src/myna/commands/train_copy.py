"""What already lies at `--copy-to`: a run to go on with, or the copy of this one as it was."""

from myna.commands.train_call import Say, TrainCall
from myna.errors import DownloadError, OutputError, UsageError
from myna.model.checkpoint import newest_first
from myna.model.remote import CHECKPOINTS, fetch_newest
from myna.run import Run
from myna.store.remote import Remote, Wanted


def take_over(run: Run, call: TrainCall, say: Say) -> str:
    """Fetches the run at --copy-to into a folder that holds none. Where it holds one, the copy must be of that run.

    Raises:
        OutputError: the place can't be looked at; it holds another run, or is further on; or `--resume never`.
        CheckpointError: none of the copy's checkpoints is sound.
        UsageError: no such kind of URL. DownloadError: a file can't be fetched.
    """
    if call.copy_to is None:
        return ""
    try:
        remote = Remote(call.copy_to)
        there = remote.list()
        if run.exists():
            require_copy(run, remote)
            return ""
    except UsageError as error:
        raise UsageError(f"--copy-to {error}") from error
    except DownloadError as error:
        raise OutputError(f"--copy-to: {error}, or leave --copy-to out") from error
    if run.recipe_path.name not in there:
        return ""
    if call.resume == "never":
        raise OutputError(
            f"--copy-to: {remote.url} holds a run already, and --resume is never; give another --copy-to"
        )
    fetch_run(run, remote, say)
    return ""


def require_copy(run: Run, remote: Remote) -> None:
    """Refuses to overwrite the copy of another run: records are appended, so an older copy's are the beginning of ours.

    Raises:
        OutputError: the copy has other records. DownloadError: they can't be read.
    """
    copied = remote.read(run.metrics_path.name) or b""
    own = run.metrics_path.read_bytes() if run.metrics_path.exists() else b""
    if not own.startswith(copied):
        raise OutputError(
            f"--copy-to: {remote.url} holds another run than {run.path}, or the same run trained further elsewhere; "
            "give a new --out to go on from the copy, or another --copy-to"
        )


def fetch_run(run: Run, remote: Remote, say: Say) -> None:
    """Fetches a run, so that it goes on here: the newest sound checkpoint with its training state, and the records.

    What was cut off is fetched to its end by the next call: the recipe, which makes the folder a run, comes last.

    Raises:
        CheckpointError: no checkpoint is sound. DownloadError: a file can't be fetched.
    """
    say(f"{run.path} holds no run: fetching the one at {remote.url}")
    if newest_first(remote.below(CHECKPOINTS).list()):
        say(f"fetched {fetch_newest(remote, run.checkpoints).name}")
    there = remote.list()
    records = [Wanted(path.name, there[path.name].n_bytes) for path in run.records if path.name in there]
    remote.fetch(sorted(records, key=lambda one: one.name == run.recipe_path.name), run.path)
