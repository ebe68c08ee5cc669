"""Exact optimal matching of n points with n others, and the potentials that prove it.

    min over permutations s of  sum_i C[i, s(i)]   =   max over f, g with f_i + g_j <= C_ij of  sum_i f_i + sum_j g_j

Two classical stages, each slow alone. An auction (Bertsekas 1988) finds good prices g fast and exact ones slowly:
every point i in turn takes the j with the least C_ij - g_j and lowers g_j until the second best j is better by epsilon;
epsilon falls by a factor until it is small. Shortest augmenting paths (Jonker and Volgenant 1987) are exact, and fast
when they start from good potentials: each pair that is not tight is split, and its point rematched along the
cheapest path. SciPy's solver is the second stage, started from g = 0.
"""

import numpy as np

from earthworks.compilation import compiled

FACTOR, LAST = 5.0, 1e-4  # epsilon falls from the mean cost to LAST times the median cost. LAST ten times larger or
# smaller: up to 1.5 x the time; the mean at both ends: twice as slow with heavy tails
SMALLEST = 1e-11  # least epsilon, in units of the largest cost: subtracting it must change a price


def assign(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matching and potentials of a cost matrix (n, n) of float64: columns (n,) int64, f (n,), g (n,).

    f_i + g_j <= C_ij with equality at j = columns[i], up to rounding. Typically O(n^2) to O(n^2.5), never above O(n^3)
    except for the auction; no copy of the matrix. Compiled at the first call (seconds), kept on disk afterwards.
    """
    n = len(cost)
    prices = np.zeros(n)
    columns, rows = np.arange(n), np.arange(n)
    mean = cost.mean()
    if mean > 0:
        median = np.median(cost.ravel()[:: cost.size // 100_000 | 1])
        epsilon, last = mean, max(LAST * (median or mean), SMALLEST * cost.max())
        while True:
            epsilon = max(epsilon, last)
            columns[:] = rows[:] = -1
            auction(cost, prices, epsilon, columns, rows)
            if epsilon == last:
                break
            epsilon /= FACTOR
    f = row_minima(cost, prices)
    loose = cost[np.arange(n), columns] - prices[columns] > f
    rows[columns[loose]] = -1
    columns[loose] = -1
    augment(cost, f, prices, columns, rows)
    return columns, f, prices


@compiled
def auction(cost, g, epsilon, columns, rows):
    """Match every row; afterwards C[i, columns[i]] - g <= min_j (C_ij - g_j) + epsilon for every i."""
    n = len(cost)
    for start in range(n):
        i = start
        while i >= 0:  # the outbid row bids next
            best, second, j = np.inf, np.inf, 0
            c = cost[i]
            for k in range(n):
                value = c[k] - g[k]
                if value < second:
                    if value < best:
                        best, second, j = value, best, k
                    else:
                        second = value
            if n > 1:
                g[j] -= second - best + epsilon
            outbid = rows[j]
            rows[j], columns[i] = i, j
            if outbid >= 0:
                columns[outbid] = -1
            i = outbid


@compiled
def row_minima(cost, g):
    f = np.empty(len(cost))
    for i in range(len(cost)):
        c, least = cost[i], np.inf
        for k in range(len(g)):
            least = min(least, c[k] - g[k])
        f[i] = least
    return f


@compiled
def augment(cost, f, g, columns, rows):
    """Match the rows that are left (columns[i] = -1), each along a shortest path in the reduced costs C - f - g >= 0.

    Dijkstra's algorithm from row to row; the potentials move so that reduced costs stay >= 0 and matched pairs tight.
    """
    n = len(cost)
    distance, unsettled, settled_at = np.empty(n), np.empty(n), np.empty(n)
    via, settled = np.empty(n, np.int64), np.empty(n, np.int64)
    for start in range(n):
        if columns[start] >= 0:
            continue
        c = cost[start]
        for k in range(n):
            distance[k] = unsettled[k] = c[k] - f[start] - g[k]
            via[k] = start
        count = 0
        while True:
            length, j = np.inf, 0
            for k in range(n):
                if unsettled[k] < length or (unsettled[k] == length and rows[k] < 0):  # prefer a free column among ties
                    length, j = unsettled[k], k
            i = rows[j]
            if i < 0:
                break
            settled[count], settled_at[count] = j, length
            count += 1
            unsettled[j], distance[j] = np.inf, -np.inf  # rounding must not reach a settled column again
            c = cost[i]
            base = length - (c[j] - g[j])
            for k in range(n):
                value = base + c[k] - g[k]
                if value < distance[k]:
                    distance[k] = unsettled[k] = value
                    via[k] = i
        f[start] += length
        for k in range(count):
            f[rows[settled[k]]] += length - settled_at[k]
            g[settled[k]] -= length - settled_at[k]
        while True:
            i = via[j]
            rows[j], j, columns[i] = i, columns[i], j
            if i == start:
                break
