"""Layered layout of a directed graph (after Sugiyama): layers, order within them, positions. Pure; cycles are allowed.

Up to 20,000 nodes and edges take one to two seconds at most; callers keep the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_SWEEPS = 6  # passes to and fro; an even number, so that both directions count alike. Only the magnitude matters
# Bends, which are nodes to the layout; above, long edges are drawn straight, so that time stays bounded.
_MOST_BENDS = 40_000


@dataclass(frozen=True, slots=True)
class Layout(Generic[K]):
    """Where things are. x is the layer, y the place in it, both in units of one node.

    Attributes:
        nodes: Position of each node.
        edges: For each edge given, in order, its points from start to end.
    """

    nodes: dict[K, tuple[float, float]]
    edges: tuple[tuple[tuple[float, float], ...], ...]


def layout(nodes: Sequence[K], edges: Sequence[tuple[K, K]]) -> Layout[K]:
    """Lay out a graph from left to right. Edges to unknown nodes are left out; their points are empty."""
    number = {node: at for at, node in enumerate(nodes)}
    pairs = [(number[a], number[b]) if a in number and b in number and a != b else None for a, b in edges]
    # Loops (a == b) and edges to unknown nodes keep their place in the list as None: the caller pairs the results with
    # its edges.
    layer = _layers(len(nodes), [pair for pair in pairs if pair is not None])
    ranks, links, ways = _with_bends(layer, pairs)
    _order(ranks, links)
    y = _positions(ranks, links)
    x = [0.0] * len(y)
    for at, rank in enumerate(ranks):
        for node in rank:
            x[node] = float(at)
    points = tuple(tuple((x[n], y[n]) for n in way) for way in ways)
    return Layout({node: (x[at], y[at]) for node, at in number.items()}, points)


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return the layer of each node: the length of the longest path to it, without edges that close a cycle."""
    children: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        children[a].append(b)
    order = _reverse_finish_order(children)
    place = {node: at for at, node in enumerate(order)}
    layer = [0] * count
    for node in order:
        for child in children[node]:
            # An edge against the order closes a cycle.
            if place[child] > place[node]:
                layer[child] = max(layer[child], layer[node] + 1)
    return layer


def _reverse_finish_order(children: Sequence[Sequence[int]]) -> list[int]:
    """Return the nodes in topological order, as far as there is one. Roots first, no recursion."""
    count = len(children)
    has_parent = [False] * count
    for node, below in enumerate(children):
        for child in below:
            has_parent[child] = has_parent[child] or child != node
    # Nodes within cycles only have no root above them, and come last.
    starts = [n for n in range(count) if not has_parent[n]] + [n for n in range(count) if has_parent[n]]
    seen = [False] * count
    finished: list[int] = []
    for start in reversed(starts[: sum(not p for p in has_parent)]):
        _visit(start, children, seen, finished)
    rest: list[int] = []
    for start in (n for n in starts if not seen[n]):
        part: list[int] = []
        _visit(start, children, seen, part)
        rest = part + rest
    return [*reversed(finished), *reversed(rest)]


def _visit(start: int, children: Sequence[Sequence[int]], seen: list[bool], finished: list[int]) -> None:
    if seen[start]:
        return
    seen[start] = True
    # An own stack: a chain of 20,000 tasks is deeper than Python's.
    stack = [(start, iter(children[start]))]
    while stack:
        node, below = stack[-1]
        for child in below:
            if not seen[child]:
                seen[child] = True
                stack.append((child, iter(children[child])))
                break
        else:
            finished.append(node)
            stack.pop()


def _with_bends(
    layer: list[int], pairs: Sequence[tuple[int, int] | None]
) -> tuple[list[list[int]], list[tuple[int, int]], list[list[int]]]:
    """Put a bend into every layer that an edge crosses; return layers, links between neighbours, each edge's path."""
    ranks: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for node, at in enumerate(layer):
        ranks[at].append(node)
    # Counted before any bend is made: either all long edges bend or none, or two edges of one kind would look
    # different.
    spans = sum(abs(layer[p[1]] - layer[p[0]]) for p in pairs if p is not None)
    bends = spans <= _MOST_BENDS
    links: list[tuple[int, int]] = []
    ways: list[list[int]] = []
    count = len(layer)
    for pair in pairs:
        if pair is None:
            ways.append([])
            continue
        a, b = pair
        # An edge of a cycle runs backwards through the layers.
        step = 1 if layer[b] >= layer[a] else -1
        way = [a]
        if bends:
            for at in range(layer[a] + step, layer[b], step):
                ranks[at].append(count)
                way.append(count)
                count += 1
        way.append(b)
        ways.append(way)
        links.extend((u, v) if step > 0 else (v, u) for u, v in itertools.pairwise(way))
    return ranks, links, ways


def _neighbours(ranks: list[list[int]], links: Sequence[tuple[int, int]]) -> tuple[list[list[int]], list[list[int]]]:
    count = sum(map(len, ranks))
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for a, b in links:
        after[a].append(b)
        before[b].append(a)
    return before, after


def _order(ranks: list[list[int]], links: Sequence[tuple[int, int]]) -> None:
    """Order each layer by the mean place of its neighbours, to and fro, so that few edges cross."""
    before, after = _neighbours(ranks, links)
    place = [0.0] * len(before)
    for rank in ranks:
        _number(rank, place)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        look = before if down else after
        for rank in ranks[1:] if down else ranks[-2::-1]:
            # A node without neighbours on that side stays where it is; the sort is stable.
            rank.sort(key=lambda n: sum(place[m] for m in look[n]) / len(look[n]) if look[n] else place[n])
            _number(rank, place)


def _number(rank: Sequence[int], place: list[float]) -> None:
    middle = (len(rank) - 1) / 2
    for at, node in enumerate(rank):
        place[node] = at - middle


def _positions(ranks: list[list[int]], links: Sequence[tuple[int, int]]) -> list[float]:
    """Pull each node towards its neighbours, one unit apart at least within a layer."""
    before, after = _neighbours(ranks, links)
    y = [0.0] * len(before)
    for rank in ranks:
        _number(rank, y)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        look = before if down else after
        for rank in ranks if down else reversed(ranks):
            _settle(rank, [sum(y[m] for m in look[n]) / len(look[n]) if look[n] else y[n] for n in rank], y)
    return y


def _settle(rank: Sequence[int], wanted: list[float], y: list[float]) -> None:
    """Place nodes in their order as near as possible to where each wants to be, 1 apart (pool adjacent violators)."""
    groups: list[tuple[float, int]] = []
    for at, want in enumerate(wanted):
        # Less its rank, so "1 apart" becomes "not decreasing", which the algorithm solves exactly in linear time.
        total, size = want - at, 1
        while groups and groups[-1][0] / groups[-1][1] > total / size:
            more, number = groups.pop()
            total, size = total + more, size + number
        groups.append((total, size))
    at = 0
    for total, size in groups:
        base = total / size
        for _ in range(size):
            y[rank[at]] = base + at
            at += 1
