"""Smoothed aggregation: the prolongations of an algebraic hierarchy, made on the host."""

from typing import Any

import numpy as np

from ._read_off import neighbour_max


def smoothed_aggregation(
    matrix: Any, candidates: np.ndarray, block_size: int, threshold: float, coarsest: int = 256
) -> list[Any]:
    """The prolongations from each level's next coarser one to it, finest first.

    `candidates` are near-null-space vectors, of shape `(unknowns, k)`. Levels are added until
    one has at most `coarsest` unknowns, or coarsening no longer pays.
    """
    prolongations = []
    while matrix.shape[0] > coarsest:
        labels = _aggregate(_strong_graph(matrix, threshold, block_size)).repeat(block_size)
        tentative, coarse = _fit(labels, candidates)
        if tentative.shape[1] > 0.9 * matrix.shape[0]:
            break
        if candidates.shape[1] == 1:
            smoother = _filter(matrix, threshold, candidates[:, 0])
        else:
            smoother = matrix
        prolongations.append(_smooth(smoother, tentative))
        matrix = galerkin(matrix, prolongations[-1])
        candidates, block_size, threshold = coarse, candidates.shape[1], threshold / 2
    return prolongations


def _strong_graph(matrix, threshold, block_size):
    r"""The graph of strong links, $|a_{ij}| > \theta \sqrt{m_i m_j}$ with the largest link $m_i$
    of each row, between nodes of `block_size` unknowns; with all loops."""
    import scipy.sparse as sp

    links, size = matrix.tocoo(), np.sqrt(_largest_links(matrix))
    strong = np.abs(links.data) > threshold * size[links.row] * size[links.col]
    place = links.row[strong] // block_size, links.col[strong] // block_size
    count = matrix.shape[0] // block_size
    graph = sp.coo_array((np.ones(place[0].size, bool), place), shape=(count, count))
    return (graph.tocsr() + sp.eye_array(count, dtype=bool)).tocsr()


def _largest_links(matrix):
    links, largest = matrix.tocoo(), np.zeros(matrix.shape[0])
    np.maximum.at(largest, links.row, np.where(links.row == links.col, 0, np.abs(links.data)))
    return largest


def _aggregate(graph):
    """The aggregate of each node: whole neighbourhoods, one after the other, and the nodes left
    between them to one next to them. Nodes without a neighbour belong to none (-1): the
    smoother solves for them."""
    label = np.where(np.diff(graph.indptr) > 1, 0, -1).tolist()
    starts, neighbours = graph.indptr.tolist(), graph.indices.tolist()
    count = 0
    for i, start in enumerate(starts[:-1]):
        if not label[i]:
            hood = neighbours[start : starts[i + 1]]
            if not any(label[j] for j in hood):
                count += 1
                for j in hood:
                    label[j] = count
    found = np.array(label)
    found = np.where(found == 0, neighbour_max(graph, found), found)
    return np.where(found > 0, found - 1, -1)


def _fit(labels, candidates) -> tuple[Any, np.ndarray]:
    """The tentative prolongation, on every aggregate an orthonormal basis of the candidates'
    restrictions; and the candidates on the coarse level."""
    import scipy.sparse as sp

    n, k = candidates.shape
    inside = np.flatnonzero(labels >= 0)
    inside = inside[np.argsort(labels[inside], kind="stable")]
    owner = labels[inside]
    sizes = np.bincount(owner, minlength=1)
    slot = np.arange(owner.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    stacked = np.zeros((sizes.size, max(sizes.max(), k), k))
    stacked[owner, slot] = candidates[inside]
    q, r = np.linalg.qr(stacked)
    columns = owner[:, None] * k + np.arange(k)
    place = np.repeat(inside, k), columns.ravel()
    tentative = sp.csr_array((q[owner, slot].ravel(), place), shape=(n, sizes.size * k))
    return tentative, r.reshape(-1, k)


def _filter(matrix, threshold, candidate):
    """The matrix without the entries that are small against the largest link of their row; they
    are added to the diagonal, so that the product with the candidate stays the same."""
    import scipy.sparse as sp

    links = matrix.tocoo()
    keep = np.abs(links.data) > threshold * _largest_links(matrix)[links.row]
    keep |= links.row == links.col
    place = links.row[keep], links.col[keep]
    kept = sp.csr_array((links.data[keep], place), shape=matrix.shape)
    lost = (matrix - kept) @ candidate
    return kept + sp.diags_array(lost / np.where(candidate == 0, 1, candidate))


def _smooth(matrix, tentative):
    r"""One damped Jacobi step on the columns, $(I - \tfrac43 D_v^{-1} A) T$."""
    import scipy.sparse as sp

    return (
        tentative - sp.diags_array(4 / 3 * inverse_bound(matrix)) @ (matrix @ tentative)
    ).tocsr()


def galerkin(matrix: Any, prolongation: Any) -> Any:
    """$P^T A P$, exactly symmetric."""
    coarse = prolongation.T @ (matrix @ prolongation)
    return ((coarse + coarse.T) / 2).tocsr()


def inverse_bound(matrix: Any) -> np.ndarray:
    r"""The inverse of $D_v = \mathrm{diag}(|A| v) / v$ with $A \preceq D_v$, for `v` the
    inverse root of the diagonal of $A$. One for empty rows."""
    diagonal = matrix.diagonal()
    root = np.sqrt(np.where(diagonal > 0, diagonal, 1))
    total = root * (abs(matrix) @ (1 / root))
    return np.where(total > 0, 1 / np.where(total > 0, total, 1), 1)
