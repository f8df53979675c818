"""Whether a tile looks like those that a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Training tiles that are kept, as many of each group as of any other.
_MOST_TILES = 4000
#: Tried on HER2ST C2-C5 and phantoms: more components, scaled, see smaller changes of stain; with
#: 100, sections like those of training began to look foreign.
_N_COMPONENTS = 50
#: Tiles to each component, at least.
_TILES_PER_COMPONENT = 10
_N_NEAREST = 5
#: A component that varies by less, compared with the first, is rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Distances between training tiles of different groups, which new tiles are compared with.

    Attributes
    ----------
    mean
        (d,) float32, of the embeddings.
    components
        (k, d) float32, principal components, each divided by its standard deviation.
    tiles
        (n, k) float32, scores of training tiles.
    distances
        (n,) float32, ascending: how far each of them lies from the tiles of the *other* groups.

    Raises
    ------
    ValueError
        If shapes do not fit each other, a value is NaN, or distances do not ascend.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict.uncertainty import Familiarity
    >>> random = np.random.default_rng(0)
    >>> embeddings = random.normal(size=(300, 4))
    >>> familiarity = Familiarity.fit(embeddings, np.repeat(["P1", "P2", "P3"], 100))
    >>> familiarity.score(embeddings[:1] + 100)
    array([0.], dtype=float32)
    >>> bool(0.3 < familiarity.score(random.normal(size=(300, 4))).mean() < 0.7)
    True
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    tiles: NDArray[np.float32]
    distances: NDArray[np.float32]

    def __post_init__(self) -> None:
        n_tiles = len(self.tiles)
        k, d = len(self.components), len(self.mean)
        shapes = {
            "mean": (d,),
            "components": (k, d),
            "tiles": (n_tiles, k),
            "distances": (n_tiles,),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"{name} of the familiarity must be {shape}, not {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} of the familiarity must be finite")
        if n_tiles < _N_NEAREST:
            raise ValueError(f"familiarity needs at least {_N_NEAREST} tiles, not {n_tiles}")
        if (np.diff(self.distances) < 0).any():
            raise ValueError("distances of the familiarity must ascend")

    @classmethod
    def fit(
        cls, embeddings: NDArray[np.floating[Any]], groups: NDArray[Any], *, seed: int = 0
    ) -> Familiarity:
        """Learn from training tiles how far tiles of one group lie from those of others.

        Parameters
        ----------
        embeddings
            (n, d), standardised, of training tiles. At most 4,000 are used, evenly over groups.
        groups
            (n,) group of each, at least two.
        seed
            Of their choice.

        Returns
        -------
        Familiarity

        Raises
        ------
        ValueError
            If there is one group only, the others of a group have fewer than 5 tiles, or an
            embedding is NaN.
        """
        embeddings, groups = np.asarray(embeddings, dtype=np.float64), np.asarray(groups)
        if groups.shape != (len(embeddings),):
            raise ValueError(f"groups must be ({len(embeddings)},), not {groups.shape}")
        if not np.isfinite(embeddings).all():
            raise ValueError("embeddings have NaN or infinite values")
        rows = _evenly(groups, np.random.default_rng(seed))
        chosen, groups = embeddings[rows], groups[rows]
        largest = int(np.unique(groups, return_counts=True)[1].max())
        if len(rows) - largest < _N_NEAREST:
            raise ValueError(
                f"beside the largest group of {largest} tiles there are {len(rows) - largest}, but "
                f"familiarity needs {_N_NEAREST} of other groups"
            )
        n = min(_N_COMPONENTS, chosen.shape[1], max(1, len(chosen) // _TILES_PER_COMPONENT))
        pca = PCA(n, svd_solver="full").fit(chosen)
        variance = pca.explained_variance_
        varying = variance > _ROUNDING * max(variance[0], np.finfo(np.float64).tiny)
        components = pca.components_[varying] / np.sqrt(variance[varying])[:, None]
        tiles = (chosen - pca.mean_) @ components.T
        distances = np.empty(len(tiles))
        for group in np.unique(groups):
            here = groups == group
            distances[here] = _distance(_index(tiles[~here]), tiles[here])
        return cls(
            mean=pca.mean_.astype(np.float32),
            components=np.ascontiguousarray(components, dtype=np.float32),
            tiles=tiles.astype(np.float32),
            distances=np.sort(distances).astype(np.float32),
        )

    def score(self, embeddings: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """How familiar new tiles are.

        Parameters
        ----------
        embeddings
            (n, d), standardised as those of training.

        Returns
        -------
        (n,) float32 in [0, 1]: the share of training tiles that lie farther from the tiles of other
        groups than the new tile lies from the training tiles (each the mean distance to the five
        nearest). Of tiles like those of training about evenly spread, of foreign ones 0.

        Raises
        ------
        ValueError
            If embeddings have another width.
        """
        if np.ndim(embeddings) != 2 or np.shape(embeddings)[1] != len(self.mean):
            raise ValueError(
                f"embeddings must be (n, {len(self.mean)}), not {np.shape(embeddings)}"
            )
        scores = (np.asarray(embeddings, dtype=np.float32) - self.mean) @ self.components.T
        places = np.searchsorted(self.distances, _distance(self._nearest, scores), side="right")
        return (1 - places / len(self.distances)).astype(np.float32)

    @cached_property
    def _nearest(self) -> NearestNeighbors:
        return _index(self.tiles)


def _evenly(groups: NDArray[Any], generator: np.random.Generator) -> NDArray[np.intp]:
    """Rows that are kept, as many of each group as of any other where it has them."""
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(
            f"there is one group only, {', '.join(map(str, names))}: familiarity compares the "
            "tiles of groups"
        )
    shuffled = generator.permutation(len(groups))
    each = _MOST_TILES // len(names)
    kept = [shuffled[groups[shuffled] == name][: max(1, each)] for name in names]
    return np.sort(np.concatenate(kept))


def _index(tiles: NDArray[np.floating[Any]]) -> NearestNeighbors:
    return NearestNeighbors(n_neighbors=_N_NEAREST).fit(tiles)


def _distance(
    index: NearestNeighbors, tiles: NDArray[np.floating[Any]]
) -> NDArray[np.floating[Any]]:
    """Mean distance to the nearest."""
    found: NDArray[np.floating[Any]] = index.kneighbors(tiles)[0].mean(axis=1)
    return found
