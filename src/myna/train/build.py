"""What a recipe asks for, built: a network with fresh weights, and the stepper around it."""

import contextlib
from collections.abc import Iterator

import torch

from myna.device import Precision
from myna.errors import ModelError
from myna.model.decoder import check_network
from myna.model.network import Network, network_kind
from myna.model.weights import build_without_memory
from myna.train.average import WeightAverage
from myna.train.machines.ranks import Ranks
from myna.train.machines.shard import shard_network, unsharded
from myna.train.memory import is_out_of_memory, require_room
from myna.train.optimizers import optimizer_kind
from myna.train.optimizers.optimizer import Optimizer
from myna.train.recipe import Recipe
from myna.train.step import Stepper


def new_network(recipe: Recipe, vocab_size: int, device: torch.device, *, sharded: bool = False) -> Network:
    """Fresh weights: drawn on the CPU, so that a seed gives the same ones on every device.

    Raises:
        ModelError: it does not fit, gives results of other shapes than training needs, or does not compute what its
            files would say.
    """
    kind, config = network_kind(recipe.network), recipe.network_config(vocab_size)
    sketch = build_without_memory(kind, config)
    require_room(sketch, new_optimizer(recipe, sketch), device, sharded=sharded)
    torch.manual_seed(recipe.seed)
    try:
        network: Network = kind.load()(config).to(device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        n = sketch.n_parameters()
        raise ModelError(
            f"a model of {n:,} parameters ({4 * n / 1e9:,.1f} GB in fp32) does not fit the memory that {device} has "
            "left; free some, or take fewer layers"
        ) from error
    check_network(network)
    network.layout.check(network)
    return network


def new_optimizer(recipe: Recipe, network: Network) -> Optimizer:
    """The recipe's optimizer for a network."""
    return optimizer_kind(recipe.optimizer).build(network, recipe.learning_rate, recipe.optimizer_options)


def new_stepper(
    recipe: Recipe, network: Network, ranks: Ranks, precision: Precision, *, sharded: bool = False
) -> Stepper:
    """All that makes a step, around a network's weights, which are spread over the ranks first where `sharded`."""
    if sharded:
        shard_network(network, ranks)
    return Stepper(
        network,
        new_optimizer(recipe, network),
        ranks=ranks,
        precision=precision,
        clip_norm=recipe.clip_norm,
        seed=recipe.seed,
        average=WeightAverage(network, recipe.average_decay) if recipe.average_decay else None,
    )


@contextlib.contextmanager
def network_to_evaluate(recipe: Recipe, vocab_size: int, stepper: Stepper) -> Iterator[Network]:
    """The network for what is done between steps: a whole one, with the average of the weights where there is one.

    Every rank takes part.
    """
    kind, config = network_kind(recipe.network), recipe.network_config(vocab_size)
    with stepper.average.in_place() if stepper.average else contextlib.nullcontext():
        yield unsharded(stepper.network, lambda: build_without_memory(kind, config))
