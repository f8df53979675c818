"""Similarity of tiles to the training tiles of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from stpredict import _validate
from stpredict.uncertainty._intervals import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.uncertainty._intervals import Floats

#: Training tiles that are stored, equally many of each group.
_MAX_TILES = 4000
#: Chosen on HER2ST C2-C5 and phantoms: more scaled components detect smaller changes of stain,
#: but with 100, sections similar to training had low familiarity.
_N_COMPONENTS = 50
#: Least number of tiles per component.
_TILES_PER_COMPONENT = 10
_N_NEIGHBORS = 5
#: A component with a variance below this share of the first is rounding error.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Distances between training tiles of different groups, as a reference for new tiles.

    Attributes
    ----------
    mean
        (d,) float32, mean of the embeddings.
    components
        (k, d) float32, principal components, each divided by its standard deviation.
    tiles
        (n, k) float32, principal component scores of training tiles.
    distances
        (n,) float32, distances of the training tiles to tiles of the *other* groups, ascending.

    Raises
    ------
    ValueError
        If shapes do not match, a value is not finite, or distances do not ascend.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict.uncertainty import Familiarity
    >>> embeddings = np.random.default_rng(0).normal(size=(300, 4))
    >>> familiarity = Familiarity.fit(embeddings, np.repeat(["P1", "P2", "P3"], 100))
    >>> familiarity.score(embeddings[:1] + 100)
    array([0.], dtype=float32)
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    tiles: NDArray[np.float32]
    distances: NDArray[np.float32]

    def __post_init__(self) -> None:
        n, k, d = len(self.tiles), len(self.components), len(self.mean)
        shapes = {"mean": (d,), "components": (k, d), "tiles": (n, k), "distances": (n,)}
        for name, shape in shapes.items():
            check_shape(f"{name} of the familiarity", getattr(self, name), *shape)
            _validate.finite(getattr(self, name), what=f"{name} of the familiarity")
        if n < _N_NEIGHBORS:
            raise ValueError(f"familiarity needs at least {_N_NEIGHBORS} tiles, not {n}")
        if (np.diff(self.distances) < 0).any():
            raise ValueError("distances of the familiarity must ascend")

    def __repr__(self) -> str:
        k, d = self.components.shape
        return f"Familiarity({len(self.tiles)} tiles, {k} components of {d} features)"

    @classmethod
    def fit(cls, embeddings: Floats, groups: NDArray[Any], *, seed: int = 0) -> Familiarity:
        """Compute the distances between training tiles of different groups.

        Parameters
        ----------
        embeddings
            (n, d) standardised embeddings. At most 4,000 are used, equally many of each group.
        groups
            (n,) group of each tile, at least two different ones.
        seed
            Random seed of the subset of tiles.

        Returns
        -------
        Familiarity

        Raises
        ------
        ValueError
            If fewer than 5 tiles are outside the largest group, or an embedding is not finite.
        """
        return LeftOut.fit(embeddings, groups, seed=seed).familiarity

    def score(self, embeddings: Floats) -> NDArray[np.float32]:
        """Familiarity of new tiles.

        Parameters
        ----------
        embeddings
            (n, d) embeddings, standardised like those of training.

        Returns
        -------
        (n,) float32 in [0, 1], the share of training tiles that are farther from other groups than
        the new tile is from the training tiles (mean over the five nearest tiles). About uniform
        for tiles similar to training, 0 for unfamiliar tiles.

        Raises
        ------
        ValueError
            If the number of features differs.
        """
        distances = _distance(self._neighbors, self.project(embeddings))
        rank = np.searchsorted(self.distances, distances, side="right")
        return (1 - rank / len(self.distances)).astype(np.float32)

    def project(self, embeddings: Floats) -> NDArray[np.float32]:
        """Principal component scores of tiles, (n, k)."""
        check_shape("embeddings", embeddings, "n", len(self.mean))
        projected = (np.asarray(embeddings, dtype=np.float32) - self.mean) @ self.components.T
        return np.asarray(projected, dtype=np.float32)

    @cached_property
    def _neighbors(self) -> NearestNeighbors:
        return _index(self.tiles)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Familiarity of training tiles, from which groups can be left out."""

    familiarity: Familiarity
    groups: NDArray[Any]  # (n,) of the tiles of the familiarity
    distances: NDArray[np.float64]  # (n,) of these tiles to tiles of other groups

    @classmethod
    def fit(cls, embeddings: Floats, groups: NDArray[Any], *, seed: int = 0) -> LeftOut:
        """Compute the distances, as for `Familiarity.fit`."""
        _validate.seed(seed)
        embeddings, groups = np.asarray(embeddings, dtype=np.float64), np.asarray(groups)
        check_shape("groups", groups, len(embeddings))
        _validate.finite(embeddings, what="embeddings")
        rows = _balanced_subset(groups, np.random.default_rng(seed))
        embeddings, groups = embeddings[rows], groups[rows]
        n_outside = len(rows) - int(np.unique(groups, return_counts=True)[1].max())
        if n_outside < _N_NEIGHBORS:
            needed = f"{_N_NEIGHBORS} tiles outside the largest group"
            raise ValueError(f"familiarity needs {needed}, found {n_outside}")
        n = min(_N_COMPONENTS, embeddings.shape[1], max(1, len(rows) // _TILES_PER_COMPONENT))
        # the full solver is deterministic
        pca = PCA(n, svd_solver="full").fit(embeddings)
        variance = pca.explained_variance_
        varies = variance > _ROUNDING * max(variance[0], np.finfo(np.float64).tiny)
        components = pca.components_[varies] / np.sqrt(variance[varies])[:, None]
        tiles = (embeddings - pca.mean_) @ components.T
        distances = _distances_between(tiles, groups)
        # float32 halves the size of a saved model
        familiarity = Familiarity(
            mean=pca.mean_.astype(np.float32),
            components=np.ascontiguousarray(components, dtype=np.float32),
            tiles=tiles.astype(np.float32),
            distances=np.sort(distances).astype(np.float32),
        )
        return cls(familiarity, groups, distances)

    def without(self, group: Any) -> Familiarity:
        """Familiarity to the tiles of the other groups."""
        outside = self.groups != group
        tiles, groups = self.familiarity.tiles[outside], self.groups[outside]
        distances = self.distances[outside]
        if len(np.unique(groups)) > 1:  # else, the group left out is the only other one
            distances = _distances_between(tiles, groups)
        return replace(
            self.familiarity, tiles=tiles, distances=np.sort(distances).astype(np.float32)
        )


def _distances_between(tiles: Floats, groups: NDArray[Any]) -> NDArray[np.float64]:
    """Distance of each tile to tiles of the other groups; those of the same slide are similar."""
    distances = np.empty(len(tiles))
    for group in np.unique(groups):
        inside = groups == group
        distances[inside] = _distance(_index(tiles[~inside]), tiles[inside])
    return distances


def _balanced_subset(groups: NDArray[Any], generator: np.random.Generator) -> NDArray[np.intp]:
    """Random rows, equally many of each group if it has enough."""
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(f"familiarity needs at least two groups, found {names.tolist()}")
    shuffled = generator.permutation(len(groups))
    n_each = max(1, _MAX_TILES // len(names))
    return np.sort(np.concatenate([shuffled[groups[shuffled] == name][:n_each] for name in names]))


def _index(tiles: Floats) -> NearestNeighbors:
    return NearestNeighbors(n_neighbors=_N_NEIGHBORS).fit(tiles)


def _distance(index: NearestNeighbors, tiles: NDArray[Any]) -> Floats:
    """Mean distance to the nearest tiles of an index."""
    return np.asarray(index.kneighbors(tiles)[0].mean(axis=1))
