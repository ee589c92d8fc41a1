"""How long a run's step and its evaluations take here, measured before step 1 by making some and forgetting them."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import torch

from myna.device import synchronize
from myna.model.network import Network
from myna.train.evaluations import Evaluation
from myna.train.machines.ranks import Ranks
from myna.train.machines.shard import local
from myna.train.step import Batch, Stepper


@contextlib.contextmanager
def forgotten(stepper: Stepper) -> Iterator[None]:
    """Within the block, steps may be made that the run knows nothing of: afterwards no bit of it is another.

    Weights, their average, fp16's scale and the random generators are as before, and the optimizer has no state. The
    copy of the weights is in the host's memory, since the largest micro-batch that fits a GPU leaves no room there.

    Raises:
        ValueError: the optimizer has made a step before.
    """
    if stepper.optimizer.has_state():
        raise ValueError("only steps before the first can be forgotten")
    network, scale = stepper.network, stepper.scaler.state_dict()
    parameters, was_training = dict(network.named_parameters()), network.training
    weights = {name: local(p).detach().to("cpu", copy=True) for name, p in parameters.items()}
    generators = [stepper.ranks.device] if stepper.ranks.device.type == "cuda" else []
    with torch.random.fork_rng(devices=generators):
        stepper.distribute()
        try:
            yield
        finally:
            stepper.undistribute()
            stepper.optimizer.forget()
            with torch.no_grad():
                for name, parameter in parameters.items():
                    local(parameter).copy_(weights[name])
                    if stepper.average is not None:  # before step 1 it is equal to the weights
                        local(stepper.average.values[name]).copy_(weights[name])
            stepper.scaler.load_state_dict(scale)
            stepper.stopwatch.take()
            network.train(was_training)


def make_step(
    stepper: Stepper, batches: Iterator[Batch], micro_batches: int, *, targets: int, learning_rate: float
) -> None:
    """Makes a step, from so many of this rank's next micro-batches, and waits until the device has finished it."""
    stepper.step(0, batches, accumulate=micro_batches, step_targets=targets, learning_rate=learning_rate)
    synchronize(stepper.ranks.device)


def step_seconds(
    make: Callable[[int], None], accumulate: int, ranks: Ranks, seconds: float
) -> tuple[float, int]:
    """The mean time of a step, and of how many steps it is the mean.

    A step of many micro-batches may take longer than there is time to measure it. Then two shorter ones tell what a
    micro-batch adds, and the number of steps is 0. All ranks know the same times, so all make the same steps.

    Args:
        make: makes a step of so many micro-batches.
        accumulate: micro-batches of a step.
        seconds: about how long to measure.
    """

    def timed(micro_batches: int) -> float:
        began = time.perf_counter()
        make(micro_batches)
        return float(ranks.from_main(repr(time.perf_counter() - began)))

    timed(1)  # finds its memory
    one = timed(1)
    if accumulate > 1 and one * accumulate > seconds:
        some = min(accumulate, max(2, int(seconds / one)))
        each = max(0.0, timed(some) - one) / (some - 1)
        return one + (accumulate - 1) * each, 0
    times = [one] if accumulate == 1 else []
    while sum(times) < seconds or not times:
        times.append(timed(accumulate))
    return math.fsum(times) / len(times), len(times)


class _EnoughError(Exception):
    """An evaluation was watched for long enough."""


def evaluation_seconds(
    evaluation: Evaluation,
    network: Callable[[], contextlib.AbstractContextManager[Network]],
    ranks: Ranks,
    seconds: float,
) -> float:
    """About what an evaluation takes, by its first rounds. It ends before its last one, so it has no effect.

    Args:
        network: gives the network to evaluate, see `Evaluations`.
        seconds: about how long to measure.
    """
    calls: list[float] = []

    def check() -> None:
        now = float(ranks.from_main(repr(time.perf_counter())))
        calls.append(now)
        if rounds > 1 and (len(calls) >= rounds or (len(calls) > 1 and now - calls[0] >= seconds)):
            raise _EnoughError

    with network() as whole:
        rounds = evaluation.rounds(whole)
        began = time.perf_counter()
        try:
            evaluation.function(whole, 0, check)
        except _EnoughError:
            # What comes before the first round is done once.
            return calls[0] - began + rounds * (calls[-1] - calls[0]) / (len(calls) - 1)
        return time.perf_counter() - began
