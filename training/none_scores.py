"""None scores of the literature, fitted to lesions alone, to compare ours with. Higher = further from lesions.

The exported network has one logit, on which maximum softmax, energy and their kin are all the same order. They are given the
logits of a logistic regression of the diagnoses on the embedding instead, the best case that can be made for them.
`make oodeel` compares the formulas with those of the library oodeel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

Floats = npt.NDArray[np.float64]
Score = Callable[[Floats], Floats]
"""Embeddings [N, D] -> none scores [N]."""

REACT_QUANTILE = 0.9
SCALE_QUANTILE = 0.85
NEIGHBOURS = 50
VIM_VARIANCE = 0.99
MAX_ITERATIONS = 200


@dataclass(frozen=True)
class Head:
    """Linear map from embeddings to logits of diagnoses: kernel [D, K], bias [K]."""

    kernel: Floats
    bias: Floats

    @classmethod
    def fit(cls, embeddings: Floats, diagnoses: npt.NDArray[np.str_]) -> "Head":
        """Logistic regression on embeddings brought to unit variance."""
        scale = embeddings.std(axis=0) + 1e-6
        model = LogisticRegression(C=0.01, max_iter=MAX_ITERATIONS).fit(embeddings / scale, diagnoses)
        kernel, bias = model.coef_.T, model.intercept_
        if kernel.shape[1] == 1:  # two diagnoses have one column
            kernel, bias = np.concatenate([-kernel, kernel], axis=1) / 2, np.concatenate([-bias, bias]) / 2
        return cls(kernel / scale[:, None], bias)

    def logits(self, embeddings: Floats) -> Floats:
        """[N, D] -> [N, K]."""
        return embeddings @ self.kernel + self.bias


def max_softmax(head: Head) -> Score:
    """Hendrycks and Gimpel, arXiv 1610.02136."""
    return lambda x: -softmax(head.logits(x), axis=1).max(axis=1)


def energy(head: Head) -> Score:
    """Liu et al., arXiv 2010.03759, at temperature 1."""
    return lambda x: -logsumexp(head.logits(x), axis=1)


def react(embeddings: Floats, head: Head) -> Score:
    """Energy of embeddings clipped at a quantile of the lesions' (Sun et al., arXiv 2111.12797)."""
    limit = np.quantile(embeddings, REACT_QUANTILE)
    return lambda x: energy(head)(np.minimum(x, limit))


def scale(head: Head) -> Score:
    """Energy of embeddings scaled by how much of their sum the largest activations hold (Xu et al., arXiv 2310.00227)."""

    def score(x: Floats) -> Floats:
        limit = np.quantile(x, SCALE_QUANTILE, axis=1, keepdims=True, method="nearest")
        share = x.sum(axis=1, keepdims=True) / np.where(x > limit, x, 0.0).sum(axis=1, keepdims=True)
        return energy(head)(x * np.exp(share))

    return score


def mahalanobis(embeddings: Floats, diagnoses: npt.NDArray[np.str_]) -> Score:
    """Squared distance to the nearest diagnosis under one shared covariance (Lee et al., arXiv 1807.03888)."""
    means, within = _class_statistics(embeddings, diagnoses)
    precision = np.linalg.pinv(within, hermitian=True)
    return lambda x: np.min([_squared_distance(x - mean, precision) for mean in means], axis=0)


def relative_mahalanobis(embeddings: Floats, diagnoses: npt.NDArray[np.str_]) -> Score:
    """Mahalanobis less the distance to all lesions as one Gaussian (Ren et al., arXiv 2106.09022)."""
    near = mahalanobis(embeddings, diagnoses)
    mean = embeddings.mean(axis=0)
    precision = np.linalg.pinv(np.cov((embeddings - mean).T, bias=True), hermitian=True)
    return lambda x: near(x) - _squared_distance(x - mean, precision)


def nearest_neighbours(embeddings: Floats) -> Score:
    """Distance to the k-th nearest lesion on the unit sphere (Sun et al., arXiv 2204.06507)."""
    bank = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)

    def score(x: Floats) -> Floats:
        closeness = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ bank.T
        rank = min(NEIGHBOURS, len(bank))
        kth = -np.partition(-closeness, rank - 1, axis=1)[:, rank - 1]
        return np.sqrt(np.maximum(2 - 2 * kth, 0.0))

    return score


def virtual_logit(embeddings: Floats, head: Head, principal: float = VIM_VARIANCE) -> Score:
    """Residual outside the principal space, scaled to the logits, less the energy (Wang et al., arXiv 2203.10807).

    `principal` is the share of the variance in that space, or the number of its dimensions.
    """
    analysis = PCA(principal, svd_solver="covariance_eigh").fit(embeddings)

    def residual(x: Floats) -> Floats:
        centred = x - analysis.mean_
        return np.linalg.norm(centred - centred @ analysis.components_.T @ analysis.components_, axis=1)

    alpha = head.logits(embeddings).max(axis=1).mean() / residual(embeddings).mean()
    return lambda x: alpha * residual(x) + energy(head)(x)


def fit_all(embeddings: Floats, diagnoses: npt.NDArray[np.str_]) -> dict[str, Score]:
    """Every score by name, fitted to the embeddings [N, D] of lesions and their diagnoses [N]."""
    head = Head.fit(embeddings, diagnoses)
    return {
        "max softmax": max_softmax(head),
        "energy": energy(head),
        "ReAct": react(embeddings, head),
        "SCALE": scale(head),
        "Mahalanobis": mahalanobis(embeddings, diagnoses),
        "relative Mahalanobis": relative_mahalanobis(embeddings, diagnoses),
        "KNN": nearest_neighbours(embeddings),
        "ViM": virtual_logit(embeddings, head),
    }


def _class_statistics(embeddings: Floats, diagnoses: npt.NDArray[np.str_]) -> tuple[list[Floats], Floats]:
    means = [embeddings[diagnoses == diagnosis].mean(axis=0) for diagnosis in np.unique(diagnoses)]
    _, number = np.unique(diagnoses, return_inverse=True)
    centred = embeddings - np.stack(means)[number]
    return means, centred.T @ centred / len(centred)


def _squared_distance(centred: Floats, precision: Floats) -> Floats:
    return np.einsum("nd,nd->n", centred @ precision, centred)
