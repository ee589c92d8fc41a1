"""A second optimizer, as somebody would add it: SGD with momentum, the embeddings at a rate of their own."""

from dataclasses import dataclass

import torch

from myna.settings import ABOVE_0, BELOW_1, Options, setting
from myna.train.optimizers import OPTIMIZERS, OptimizerKind
from myna.train.optimizers.optimizer import Optimizer, Part


@dataclass(frozen=True, kw_only=True)
class MomentumOptions(Options):
    momentum: float = setting(0.9, BELOW_1)
    """Share of the last update's direction that stays in the next."""
    embedding_factor: float = setting(2.0, ABOVE_0)
    """The embeddings' learning rate, in learning rates of the rest."""


def build(network, learning_rate, options):
    embeddings = [p for name, p in network.named_parameters() if name in network.vocabulary_rows]
    rest = [p for name, p in network.named_parameters() if name not in network.vocabulary_rows]
    groups = [{"params": embeddings, "factor": options.embedding_factor}, {"params": rest}]
    sgd = torch.optim.SGD(groups, lr=learning_rate, momentum=options.momentum)
    return Optimizer(network, [Part(sgd, kinds=("momentum_buffer",))])


OPTIMIZERS["momentum"] = OptimizerKind(build, MomentumOptions)
