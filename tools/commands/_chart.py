"""A bar chart of the steps of a model, as SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from mgec.tools.commands.bench import duration

if TYPE_CHECKING:
    from mgec.compiler.tune.explanation import Explanation

_ROW, _LABEL, _BAR, _FIGURES, _TOP = 18, 240, 480, 160, 48
"""Pixels: height of a row, widths of names, bars and figures, height of the heading."""

_COLORS = {"compute": "#3b6fb6", "memory": "#c0563b", "cache": "#4a9a6a"}
"""By what bounds a step."""


def bar_chart(explanation: Explanation, title: str) -> str:
    """One bar for the time of each step; its dark part is the ceiling.

    Args:
        explanation: with times.
        title: above the bars.
    """
    rows = [
        (f"{call.name} ({i + 1})" if len(call.steps) > 1 else call.name, step.limit)
        for call in explanation.calls
        for i, step in enumerate(call.steps)
        if step.limit is not None
    ]
    longest = max((limit.least for _, limit in rows), default=0.0) or 1.0
    width, height = _LABEL + _BAR + _FIGURES, _TOP + _ROW * len(rows) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="8" y="18" font-size="14">{escape(title)}</text>',
    ]
    for i, (name, color) in enumerate(_COLORS.items()):
        x = _LABEL + 110 * i
        lines.append(f'<rect x="{x}" y="26" width="10" height="10" fill="{color}"/>')
        lines.append(f'<text x="{x + 14}" y="35">bound by {name}</text>')
    for i, (name, limit) in enumerate(rows):
        y, length = _TOP + _ROW * i, _BAR * limit.least / longest
        ceiling = min(length, _BAR * limit.ceiling / longest)
        color, middle = _COLORS[limit.bound_by], y + 12
        figures = f"{duration(limit.least)}, {limit.percent:.0f}%"
        lines += [
            f'<text x="{_LABEL - 6}" y="{middle}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LABEL}" y="{y + 2}" width="{length:.1f}" height="{_ROW - 4}" '
            f'fill="{color}" opacity="0.35"/>',
            f'<rect x="{_LABEL}" y="{y + 2}" width="{ceiling:.1f}" height="{_ROW - 4}" '
            f'fill="{color}"/>',
            f'<text x="{_LABEL + length + 6:.1f}" y="{middle}">{figures}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
