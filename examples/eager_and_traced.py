"""One line, `@trace`, turns a function that runs op by op into one compiled graph.

python examples/eager_and_traced.py
"""

import time

import numpy as np

import mgec as mge
import mgec.functional as F
from mgec.jit import trace


@trace(symbolic=True)
def normalized_gelu(x):
    """Rows of mean 0 and variance 1, then GELU."""
    mean = x.mean(axis=1, keepdims=True)
    centred = x - mean
    deviation = F.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return F.gelu(centred / deviation)


def milliseconds(function, *args) -> float:
    """The best of 20 calls."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


x = mge.tensor(np.random.default_rng(0).standard_normal((512, 1024), "float32"))
traced = normalized_gelu(x)  # the first call records and compiles; later calls run the graph
traced_ms = milliseconds(normalized_gelu, x)

trace.enabled = False  # now every traced function is a plain Python function
eager = normalized_gelu(x)
eager_ms = milliseconds(normalized_gelu, x)

difference = np.abs(traced.numpy() - eager.numpy()).max()
print(f"eager {eager_ms:.2f} ms, traced {traced_ms:.2f} ms, largest difference {difference:.1g}")
