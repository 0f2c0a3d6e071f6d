"""The figures of ``managers.py`` as a picture: plain SVG, so that nothing has to be installed for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 360, 60, 50, 40, 20
_LINES = (("batched", "#1f6feb"), ("one result a message", "#d1640c"))


def draw(rows: Sequence[tuple[int, float, float]]) -> str:
    """Return a picture of (managers, CPU us a task batched, the same singly); the axis of managers is logarithmic."""
    highest = max(max(batched, singly) for _, batched, singly in rows)
    top = math.ceil(highest / 5) * 5
    last = math.log10(max(10, rows[-1][0]))

    def x(managers: int) -> float:
        return _LEFT + math.log10(managers) / last * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-family="sans-serif" font-size="14">CPU of the interchange a task, us</text>',
    ]
    parts.append('<g font-family="sans-serif" font-size="12">')
    for step in range(6):
        value = top * step / 5
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for managers, _, _ in rows:
        parts.append(f'<text x="{x(managers):.1f}" y="{_HEIGHT - 30}" text-anchor="middle">{managers:,}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 10}" text-anchor="middle">managers of 32 slots</text>')
    for column, (name, colour) in enumerate(_LINES, start=1):
        points = [(x(row[0]), y(row[column])) for row in rows]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>' for px, py in points]
        parts.append(
            f'<text x="{_WIDTH - _RIGHT}" y="{10 + 14 * column}" text-anchor="end" fill="{colour}">{name}</text>'
        )
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"
