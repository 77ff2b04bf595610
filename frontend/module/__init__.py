"""Layers and networks: ``import mgec.module as M``."""

# ruff: noqa: F401, F403
from mgec.module import init
from mgec.module.activation import *
from mgec.module.attention import *
from mgec.module.batchnorm import *
from mgec.module.container import *
from mgec.module.conv import *
from mgec.module.embedding import *
from mgec.module.linear import *
from mgec.module.misc import *
from mgec.module.module import Module, state_epoch
from mgec.module.normalization import *
from mgec.module.pooling import *
