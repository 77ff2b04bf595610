"""Measures an .onnx file in one other framework, whose Python runs this: one line of JSON.

    venv-ort/bin/python benchmarks/onnx_peer.py ort net.onnx --threads 1 --seconds 2

It needs that framework and NumPy only. The inputs, and outputs to compare with, are in the .npz
file of the same name beside the model, by their names in the model.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP_RUNS, LEAST_RUNS = 3, 5

Arrays = dict[str, Any]
Prepared = tuple[Callable[[], Any], Callable[[], Arrays], str]
"""What runs the model once, what gives its outputs by name after that, and the version."""


def ort(file: Path, arrays: Arrays, threads: int, precision: str) -> Prepared:
    """ONNX Runtime: all graph optimizations, one thread pool."""
    import onnxruntime

    if precision != "f32":
        raise SystemExit(f"ort: there is no {precision} on processors")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    inputs = {each.name: arrays[each.name] for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    return (
        lambda: session.run(None, inputs),
        lambda: dict(zip(names, session.run(None, inputs), strict=True)),
        onnxruntime.__version__,
    )


def openvino(file: Path, arrays: Arrays, threads: int, precision: str) -> Prepared:
    """OpenVINO: the latency hint, one stream."""
    import openvino as ov

    core = ov.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    request = core.compile_model(core.read_model(file), "CPU", hints).create_infer_request()
    for each in request.model_inputs:
        request.set_tensor(each, ov.Tensor(arrays[each.any_name]))
    model = request.model_outputs

    def outputs() -> Arrays:
        request.infer()
        return {out.any_name: request.get_tensor(out).data.copy() for out in model}

    return request.infer, outputs, ov.__version__.split("-")[0]


FRAMEWORKS: dict[str, Callable[[Path, Arrays, int, str], Prepared]] = {
    "ort": ort,
    "openvino": openvino,
}


def times_of(run: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Times runs for about `seconds`; `min_ms`, `median_ms` and how many."""
    for _ in range(WARM_UP_RUNS):
        run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return {
        "min_ms": round(min(times) * 1e3, 6),
        "median_ms": round(float(np.median(times)) * 1e3, 6),
        "runs": len(times),
    }


def relative_error(outputs: Arrays, expected: Arrays) -> float | None:
    """The largest difference over the largest magnitude, of the outputs that are expected."""
    errors = [
        float(np.abs(np.asarray(value, np.float64) - expected[name]).max())
        / (float(np.abs(expected[name]).max()) or 1.0)
        for name, value in outputs.items()
        if name in expected
    ]
    return max(errors, default=None)


def peak_rss_mb() -> float:
    """The most memory this process ever held, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("framework", choices=sorted(FRAMEWORKS))
    parser.add_argument("file", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    with np.load(options.file.with_suffix(".npz")) as data:
        arrays = {name: data[name] for name in data.files}
    start = time.perf_counter()
    run, outputs, version = FRAMEWORKS[options.framework](
        options.file, arrays, options.threads, options.precision
    )
    load_s = time.perf_counter() - start
    row: dict[str, Any] = {
        "framework": options.framework,
        "version": version,
        "threads": options.threads,
        "load_s": round(load_s, 3),
        "rel_err": relative_error(outputs(), arrays),
        **times_of(run, options.seconds),
        "peak_rss_mb": peak_rss_mb(),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
