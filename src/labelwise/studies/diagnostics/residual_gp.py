"""A Gaussian process on what a pretrained model leaves unexplained, for nested training sets.

The sets T₁ ⊂ T₂ ⊂ … are prefixes of one sequence. The Cholesky factor of a leading block of a
matrix is the leading block of its factor, so one factorisation serves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from labelwise.errors import ArgumentError
from labelwise.kernels.base import Kernel
from labelwise.selection.rules.base import DEFAULT_REGULARISATION, check_regularisation


@dataclass(frozen=True)
class ResidualPosterior:
    """The Gaussian process of one prefix at m held-out structures.

    Attributes:
        mean: μ, (m,) float64, the expected residual, in the residuals' unit.
        variance: s², (m,) float64 >= 0, before scaling, dimensionless.
        scale: γ >= 0, in the square of the residuals' unit.
    """

    mean: Float64[np.ndarray, " m"]
    variance: Float64[np.ndarray, " m"]
    scale: float

    def std_with(self, noise: float = 0.0) -> Float64[np.ndarray, " m"]:
        """Return the predictive standard deviation √(γ (s² + noise)), in the residuals' unit.

        Args:
            noise: Of a label, in units of the kernel, >= 0. The paper takes 0: calculated labels
                repeat, and λ is there to make the matrix invertible. λ would be that of labels
                with noise of this size.

        Returns:
            (m,) float64.
        """
        std: Float64[np.ndarray, " m"] = np.sqrt(self.scale * (self.variance + noise))
        return std


class NestedResidualGP:
    """Gaussian processes on the prefixes of a sequence of labelled structures.

    With r the residuals of the first t structures and r̄ their mean::

        μ(x)  = r̄ + k_T(x)ᵀ (K_TT + λI)⁻¹ (r − r̄)
        s²(x) = k(x,x) − k_T(x)ᵀ (K_TT + λI)⁻¹ k_T(x)
        γ     = (r − r̄)ᵀ (K_TT + λI)⁻¹ (r − r̄) / t

    Args:
        labelled: The sequence's kernel, (n,) structures in order, n >= 1.
        regularisation: λ > 0, dimensionless.

    Raises:
        SelectionError: λ out of range, or a kernel value that is not finite.
        ArgumentError: No structures, or K + λI is not positive definite: the kernel is none.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, equations 18 to 20; Rasmussen and Williams 2006, algorithm 2.1.
    """

    def __init__(self, labelled: Kernel, *, regularisation: float = DEFAULT_REGULARISATION) -> None:
        check_regularisation(regularisation)
        if len(labelled) == 0:
            raise ArgumentError("labelled is empty; a Gaussian process needs structures")
        K = labelled.block64(slice(None), labelled, slice(None)).cpu().numpy()
        try:
            self._L = np.linalg.cholesky(K + regularisation * np.eye(len(K)))
        except np.linalg.LinAlgError as error:
            raise ArgumentError(
                "the kernel matrix plus λI is not positive definite: the kernel is not positive "
                "semi-definite; mend the representation, or raise the regularisation"
            ) from error
        self._labelled = labelled

    def __len__(self) -> int:
        """Count the structures of the longest prefix."""
        return len(self._L)

    def at(self, structures: Kernel) -> HeldOut:
        """Prepare predictions for held-out structures.

        Args:
            structures: Their kernel, (m,), under the same representation.

        Raises:
            SelectionError: A kernel value that is not finite.
            ArgumentError: The kernels do not belong together.
        """
        from scipy.linalg import solve_triangular

        structures.check_partner(self._labelled)
        cross = self._labelled.block64(slice(None), structures, slice(None)).cpu().numpy()
        V = solve_triangular(self._L, cross, lower=True)
        return HeldOut(self._L, V, structures.diagonal64().cpu().numpy())


class HeldOut:
    """Predictions at m held-out structures from any prefix; made by ``NestedResidualGP.at``.

    Args:
        L: (n, n) float64, the Cholesky factor of K + λI.
        V: (n, m) float64, L⁻¹ k_T.
        diagonal: (m,) float64, k(x, x).
    """

    def __init__(
        self,
        L: Float64[np.ndarray, "n n"],
        V: Float64[np.ndarray, "n m"],
        diagonal: Float64[np.ndarray, " m"],
    ) -> None:
        self._L, self._V = L, V
        explained = np.concatenate([np.zeros((1, V.shape[1])), np.cumsum(V**2, axis=0)])
        self._variances = np.maximum(diagonal - explained, 0.0)

    def predict(self, residuals: Float64[np.ndarray, " t"]) -> ResidualPosterior:
        """Condition on the first t structures of the sequence.

        Args:
            residuals: r, (t,) float64, label minus pretrained prediction, 1 <= t <= n.

        Returns:
            The posterior at the held-out structures.

        Raises:
            ArgumentError: t out of range.
        """
        from scipy.linalg import solve_triangular

        t = len(residuals)
        if not 1 <= t <= len(self._L):
            raise ArgumentError(f"residuals has {t} values; allowed are 1 to {len(self._L)}")
        mean = float(residuals.mean())
        white = solve_triangular(self._L[:t, :t], residuals - mean, lower=True)
        return ResidualPosterior(
            mean=mean + white @ self._V[:t],
            variance=self._variances[t],
            scale=float(white @ white) / t,
        )
