"""How outputs are read: as scores of classes, as values, or not at all; a network's `task` says which.

A network with one score per class predicts the class of the largest. One score alone is that of the second of
two classes (the logit of a sigmoid): class 1 is predicted where it is above 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["TASKS", "n_classes_of", "predicted_classes"]

TASKS = ("classify", "regress", "none")


def n_classes_of(output_shape: Sequence[int]) -> int:
    """The number of classes that scores of this shape tell apart: at least 2.

    Parameters
    ----------
    output_shape : (n_scores,)
        Of one sample.

    Returns
    -------
    int

    Examples
    --------
    >>> from evsnn.network.reading import n_classes_of
    >>> n_classes_of((10,)), n_classes_of((1,))
    (10, 2)
    """
    return max(2, int(output_shape[0]))


def predicted_classes(scores: np.ndarray) -> np.ndarray:
    """The class that each row of scores predicts.

    Parameters
    ----------
    scores : (n, n_scores) real
        In any scale whose zero is 0.

    Returns
    -------
    (n,) int64
        The place of the largest score, of equal ones the first; of one score, 1 if it is above 0, else 0.

    Examples
    --------
    >>> from evsnn.network.reading import predicted_classes
    >>> predicted_classes(np.array([[0.5, 2.0], [3.0, 1.0]]))
    array([1, 0])
    >>> predicted_classes(np.array([[0.5], [-1.0]]))
    array([1, 0])
    """
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0).astype(np.int64)
    return scores.argmax(axis=1)
