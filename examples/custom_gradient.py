"""An operation whose gradient you write: rounding, with the gradient of doing nothing.

python examples/custom_gradient.py
"""

import mgec as mge
import mgec.functional as F
from mgec.autodiff import Function, GradManager


class StraightThroughRound(Function):
    """Rounds; its true gradient is 0 almost everywhere, which would stop all learning.

    Source: Bengio et al., "Estimating or propagating gradients through stochastic neurons", 2013.
    """

    def forward(self, x):
        return F.round(x)

    def backward(self, dy):
        return dy


w = mge.Parameter([0.2, 1.7, -2.6])
gm = GradManager().attach([w])

with gm:
    rounded = StraightThroughRound()(w)
    gm.backward((rounded * rounded).sum())

print("rounded ", rounded)
print("gradient", w.grad)  # 2 * rounded, as if rounding were not there
