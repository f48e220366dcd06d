"""The spectral density of the Hessian of a loss."""

from collections.abc import Callable, Iterable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import types
from wsl.landscape import _checks
from wsl.landscape._hessian import lanczos, product


class Density(NamedTuple):
  """A quadrature of the distribution of eigenvalues.

  Attributes:
    nodes: ``[probes, steps]``, Ritz values of each probe.
    weights: ``[probes, steps]``, ``>= 0``; their sum over all is 1.
  """

  nodes: types.Array
  weights: types.Array


def hessian_density(
  loss_fn: Callable[[types.Params, Any], types.Array],
  params: types.Params,
  batches: Iterable[Any],
  *,
  probes: int = 4,
  steps: int = 30,
  leaves: types.Leaves | None = None,
  key: types.PRNGKey,
) -> Density:
  r"""Estimates the density of eigenvalues by stochastic Lanczos quadrature.

  .. math:: \frac1n \sum_{i=1}^n f(\lambda_i) \approx \sum_{p,k} w_{pk}
    f(\theta_{pk}), \qquad w_{pk} = \tfrac1P \, (y^{(p)}_{1k})^2

  for any f, with Ritz values :math:`\theta` and the first entries of the
  eigenvectors y of the tridiagonal matrix of each random direction. For one
  probe it is exact for the quadratic form of its direction if f is a polynomial
  of degree below ``2 * steps``. A density at ``x`` is that of the Gaussians
  ``weights * normal(x; nodes, width)``.

  Args:
    loss_fn: as in ``hessian_top``.
    params: as in ``hessian_top``.
    batches: as in ``hessian_top``.
    probes: number of random directions P, ``>= 1``.
    steps: Lanczos steps of each, ``>= 1``; at most n, the number of parameters.
    leaves: as in ``hessian_top``.
    key: of the directions.

  Returns:
    A ``Density``.

  Raises:
    ValueError: as ``hessian_top`` does.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> loss = lambda p, x: jnp.mean((x * p['w'][None]) ** 2)
    >>> x = jnp.asarray([[1.0, 2.0]])  # H = diag(1, 4)
    >>> found = hessian_density(
    ...   loss, {'w': jnp.ones(2)}, [x], probes=1, key=jax.random.key(0))
    >>> [f'{v:.3f}' for v in found.nodes[0]], f'{found.weights.sum():.3f}'
    (['1.000', '4.000'], '1.000')

  Reference:
    Ghorbani, Krishnan and Xiao, "An Investigation into Neural Net Optimization
    via Hessian Eigenvalue Density", 2019, arXiv:1901.10159; Ubaru, Chen and
    Saad, "Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature", 2017.
  """
  _checks.count('hessian_density', 'probes', probes)
  _checks.count('hessian_density', 'steps', steps)
  given, chosen = product.problem(
    'hessian_density', loss_fn, params, batches, leaves, key
  )
  steps = min(steps, product.size(given.params, chosen))
  return _density(given, chosen, probes, steps)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _density(
  given: product.Problem, chosen: product.Chosen, probes: int, steps: int
) -> Density:
  """Runs Lanczos from each probe; nodes and weights are of its T."""
  names, zeros = product.directions(given.params, chosen)
  apply = product.product('hessian_density', given, chosen)

  def of_probe(key: types.PRNGKey) -> tuple[types.Array, types.Array]:
    # With z = V e_1, z' f(H) z = e_1' f(T) e_1 = sum_k y_1k^2 f(theta_k).
    drawn = lanczos.random(key, names, zeros, steps)
    found = lanczos.krylov(apply, drawn, chosen)
    nodes, vectors = lanczos.ritz(found)
    return nodes, jnp.square(vectors[0]) / probes

  return Density(*jax.lax.map(of_probe, jax.random.split(given.key, probes)))
