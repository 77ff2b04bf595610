"""Functions of tensors: ``import mgec.functional as F``.

One namespace, in files by subject: `elemwise`, `math`, `tensor`, `nn`, `loss`, `vision`.
"""

# ruff: noqa: F401, F403
# isort: off
from mgec.functional import elemwise, math, nn, tensor, loss, vision
from mgec.functional.elemwise import *
from mgec.functional.math import *
from mgec.functional.tensor import *
from mgec.functional.nn import *
from mgec.functional.vision import *
from mgec.functional.loss import *

# MegEngine has the losses and the vision functions under `functional.nn`, too.
nn.__dict__.update({name: getattr(loss, name) for name in loss.__all__})
nn.__dict__.update({name: getattr(vision, name) for name in vision.__all__})
