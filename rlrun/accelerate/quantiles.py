"""The quantile Huber loss of QR-DQN and TQC (Dabney et al. 2018, equations 9 and 10; Kuznetsov et al. 2020).

SB3 has autograd walk back through several tensors of (batch, quantiles, targets). The gradient is known: with
d = target - quantile, c = d clipped to [-1, 1] and w = tau where d >= 0 and 1 - tau elsewhere, a pair costs
w c (d - c / 2), and its derivative by the quantile is -w c. Since w c = c / 2 + (tau - 1/2) |c|, nothing is compared.
"""

from __future__ import annotations

import numpy as np

from rlrun.accelerate.flat import Array

_CHUNK = 64_000  # pairs worked on at once: three such arrays stay in a core's cache


class QuantileHuber:
    """The mean over all pairs of the weighted Huber loss, and its gradient.

    :param batch: rows
    :param quantiles: of one distribution; tau is (i + 0.5) / quantiles
    :param distributions: of each row, one for each critic
    :param targets: of each row
    """

    def __init__(self, batch: int, quantiles: int, distributions: int, targets: int) -> None:
        width = quantiles * distributions
        tau = np.tile((np.arange(quantiles) + 0.5) / quantiles, distributions)
        self._skew = (tau - 0.5).astype(np.float32).reshape(width, 1, 1)
        self._pairs = batch * width * targets
        rows = min(width, max(1, _CHUNK // (batch * targets)))
        self._scratch = np.empty((3, rows, targets, batch), dtype=np.float32)
        self._gradient = np.empty((width, batch), dtype=np.float32)

    def __call__(self, quantiles: Array, targets: Array) -> tuple[float, Array]:
        """Loss and gradient.

        :param quantiles: (batch, distributions * quantiles)
        :param targets: (batch, targets)
        :return: the loss, and its gradient with respect to the quantiles, in their shape
        """
        # The batch comes last, so that NumPy's inner loops are long.
        q = np.ascontiguousarray(quantiles.T)[:, None, :]
        t = np.ascontiguousarray(targets.T)
        loss = 0.0
        step = self._scratch.shape[1]
        for start in range(0, len(q), step):
            part = slice(start, min(start + step, len(q)))
            loss += self._chunk(q[part], t, self._skew[part], self._gradient[part])
        np.multiply(self._gradient, -1 / self._pairs, out=self._gradient)
        return loss / self._pairs, np.ascontiguousarray(self._gradient.T)

    def _chunk(self, q: Array, t: Array, skew: Array, out: Array) -> float:
        """Sum the loss over some quantiles of every row; the sums of w c go to ``out``.

        :param q: (some, 1, batch)
        :param t: (targets, batch)
        :param skew: tau - 1/2, (some, 1, 1)
        :param out: (some, batch)
        """
        d, c, weighted = self._scratch[:, : len(q)]
        np.subtract(t, q, out=d)
        np.clip(d, -1, 1, out=c)
        np.abs(c, out=weighted)
        np.multiply(weighted, skew, out=weighted)
        np.multiply(c, 0.5, out=c)
        np.add(weighted, c, out=weighted)
        np.subtract(d, c, out=d)
        np.add.reduce(weighted, axis=1, out=out)
        return float(np.dot(weighted.ravel(), d.ravel()))
