"""Drawing indices in proportion to priorities that keep changing."""

from __future__ import annotations

import numpy as np


class SumTree:
    """A binary tree whose leaves are priorities and whose every other node is the sum of its two children.

    A draw walks down from the root, so it takes as many steps as the tree has levels; so does a change on its way up.
    Every sum is computed from its children, never corrected by a difference: trees with the same leaves are the same.

    :param size: how many leaves are used; all begin at 0
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._levels = max(1, (size - 1).bit_length())
        self._first_leaf = 1 << self._levels
        self._nodes = np.zeros(2 * self._first_leaf)  # the root is 1, the children of n are 2n and 2n + 1

    @property
    def total(self) -> float:
        """The sum of all priorities."""
        return float(self._nodes[1])

    @property
    def leaves(self) -> np.ndarray:
        """The priorities, (size,); a view, not to be written to."""
        return self._nodes[self._first_leaf : self._first_leaf + self.size]

    def put(self, indices: np.ndarray, priorities: np.ndarray | float) -> None:
        """Change the priorities of some indices, (n,); of an index that is named twice, the last one stays."""
        nodes = np.asarray(indices) + self._first_leaf
        self._nodes[nodes] = priorities
        for _ in range(self._levels):
            nodes = nodes >> 1
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def fill(self, priorities: np.ndarray) -> None:
        """Set the first priorities, (n,) of at most ``size``, and all others to 0."""
        self._nodes[:] = 0
        self._nodes[self._first_leaf : self._first_leaf + len(priorities)] = priorities
        for level in reversed(range(self._levels)):
            children = self._nodes[2 << level : 4 << level]
            self._nodes[1 << level : 2 << level] = children[::2] + children[1::2]

    def find(self, heights: np.ndarray) -> np.ndarray:
        """The index at which the running sum of priorities exceeds each height, (n,) in [0, total).

        An index with priority 0 is never found.
        """
        nodes, rest = np.ones(len(heights), dtype=np.int64), np.array(heights, dtype=np.float64)
        for _ in range(self._levels):
            nodes = 2 * nodes
            left = self._nodes[nodes]
            # Rounding can leave a height at the very end, where there is nothing to the right.
            right = (rest >= left) & (self._nodes[nodes + 1] > 0)
            rest -= np.where(right, left, 0)
            nodes = nodes + right
        return nodes - self._first_leaf
