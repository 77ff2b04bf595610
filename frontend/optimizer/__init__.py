"""Optimizers: ``from mgec.optimizer import SGD``."""

from mgec.optimizer.adagrad import Adadelta, Adagrad
from mgec.optimizer.adam import Adam, AdamW
from mgec.optimizer.clip_grad import clip_grad_norm, clip_grad_value
from mgec.optimizer.lr_scheduler import LRScheduler, MultiStepLR
from mgec.optimizer.optimizer import Optimizer
from mgec.optimizer.sgd import SGD

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "LRScheduler",
    "MultiStepLR",
    "Optimizer",
    "clip_grad_norm",
    "clip_grad_value",
]
