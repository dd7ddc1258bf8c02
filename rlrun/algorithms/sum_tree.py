"""Drawing indices in proportion to priorities that keep changing."""

from __future__ import annotations

import numpy as np

_CHILDREN = 16  # of a node
_TOP = 16_384  # nodes that are few enough to be summed up at every draw


class SumTree:
    """A tree whose leaves are priorities and whose every other node is the sum of its children.

    NumPy takes a level in a few calls, so there are few levels: nodes have many children, and the topmost nodes, which
    have no parent, are searched by their running sum. Every sum is computed from its children, never corrected by a
    difference: trees with the same leaves are the same.

    :param size: how many leaves are used; all begin at 0
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._levels: list[np.ndarray] = []  # the leaves first; each (nodes above, children)
        while size > _TOP or not self._levels:
            size = -(-size // _CHILDREN)
            self._levels.append(np.zeros((size, _CHILDREN)))
        self._top = np.zeros(size)

    @property
    def total(self) -> float:
        """The sum of all priorities."""
        return float(self._top.sum())

    @property
    def leaves(self) -> np.ndarray:
        """The priorities, (size,); a view, not to be written to."""
        return self._levels[0].ravel()[: self.size]

    def put(self, indices: np.ndarray, priorities: np.ndarray | float) -> None:
        """Change the priorities of some indices, (n,); of an index that is named twice, the last one stays."""
        nodes, values = np.asarray(indices), priorities
        for level in self._levels:
            level.ravel()[nodes] = values
            nodes = nodes // _CHILDREN
            values = level[nodes].sum(axis=1)
        self._top[nodes] = values

    def fill(self, priorities: np.ndarray) -> None:
        """Set the first priorities, (n,) of at most ``size``, and all others to 0."""
        values = priorities
        for level in self._levels:
            level[:] = 0
            level.ravel()[: len(values)] = values
            values = level.sum(axis=1)
        self._top[:] = values

    def find(self, heights: np.ndarray) -> np.ndarray:
        """The index at which the running sum of priorities exceeds each height, (n,) in [0, total).

        An index with priority 0 is never found.
        """
        sums = self._top.cumsum()
        nodes = sums.searchsorted(heights, side="right")
        # Rounding can leave a height at the very end, after the last of all that has anything; below too.
        if nodes.max(initial=0) == len(sums):
            nodes = np.minimum(nodes, np.flatnonzero(self._top)[-1])
        rest, rows = heights - (sums[nodes] - self._top[nodes]), np.arange(len(heights))
        for level in reversed(self._levels):
            children = level[nodes]
            sums = children.cumsum(axis=1)
            chosen = (sums <= rest[:, None]).sum(axis=1)
            if chosen.max(initial=0) == _CHILDREN:
                chosen = np.minimum(chosen, _CHILDREN - 1 - (children[:, ::-1] > 0).argmax(axis=1))
            rest -= sums[rows, chosen] - children[rows, chosen]
            nodes = nodes * _CHILDREN + chosen
        return nodes
