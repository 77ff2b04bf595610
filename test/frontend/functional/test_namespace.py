"""Names that MegEngine has and mgec must have, in the modules where MegEngine has them."""

from __future__ import annotations

import inspect

import pytest

import mgec.functional as F

NAMES = {
    "elemwise": """
        abs add acos asin atan atan2 asinh acosh atanh ceil clip cos cosh div equal exp expm1 floor
        floor_div greater greater_equal left_shift less less_equal log log1p logical_and
        logical_not logical_or logical_xor maximum minimum mod mul neg not_equal pow right_shift
        round sin sinh sqrt square sub tan tanh logaddexp""",
    "math": """
        isnan isinf sign sum prod mean var std min max argmin argmax argsort sort topk cross matmul
        dot norm normalize""",
    "tensor": """
        arange linspace eye diag full ones zeros full_like ones_like zeros_like broadcast_to concat
        stack split gather scatter where cond_take transpose non_zero swapaxes reshape flatten
        expand_dims squeeze repeat tile copy roll cumsum meshgrid""",
    "nn": """
        linear conv1d conv2d conv3d conv_transpose2d conv_transpose3d avg_pool2d max_pool2d
        adaptive_avg_pool2d adaptive_max_pool2d hswish hsigmoid relu relu6 sigmoid prelu
        leaky_relu silu gelu softplus logsoftmax logsigmoid softmax logsumexp instance_norm
        group_norm layer_norm general_norm batch_norm dropout one_hot embedding indexing_one_hot
        sliding_window pad local_response_norm pixel_shuffle multi_head_attention""",
    "loss": "l1_loss square_loss cross_entropy binary_cross_entropy hinge_loss",
    "vision": "interpolate flip rot90",
}


@pytest.mark.parametrize("module", NAMES)
def test_names(module: str) -> None:
    namespace = getattr(F, module)
    for name in NAMES[module].split():
        assert getattr(F, name) is getattr(namespace, name)
        assert name in namespace.__all__


@pytest.mark.parametrize("module", NAMES)
def test_all_is_documented(module: str) -> None:
    namespace = getattr(F, module)
    for name in namespace.__all__:
        assert inspect.getdoc(getattr(namespace, name)), name
    assert list(namespace.__all__) == sorted(namespace.__all__)


def test_defaults_are_megengines() -> None:
    def default(function: object, name: str) -> object:
        return inspect.signature(function).parameters[name].default  # type: ignore[arg-type]

    assert default(F.avg_pool2d, "mode") == "average_count_exclude_padding"
    assert default(F.batch_norm, "momentum") == 0.9
    assert default(F.cross_entropy, "axis") == 1
    assert default(F.topk, "descending") is True
    assert default(F.meshgrid, "indexing") == "xy"
    assert default(F.arange, "dtype") == default(F.linspace, "dtype") == "float32"
