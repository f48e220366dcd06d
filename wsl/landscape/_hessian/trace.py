"""The trace of the Hessian of a loss, by random probes."""

from collections.abc import Callable, Iterable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import types
from wsl.landscape import _checks, _directions
from wsl.landscape._hessian import lanczos, product


class Trace(NamedTuple):
  """An estimate of the trace.

  Attributes:
    value: ``[]``, the mean of the samples.
    error: ``[]``, its standard error: the sample deviation over the root of
      the number of probes; NaN for one probe.
    samples: ``[probes]``, the estimate of each probe.
  """

  value: types.Array
  error: types.Array
  samples: types.Array


def hessian_trace(
  loss_fn: Callable[[types.Params, Any], types.Array],
  params: types.Params,
  batches: Iterable[Any],
  *,
  probes: int = 30,
  deflate: int = 0,
  leaves: types.Leaves | None = None,
  key: types.PRNGKey,
) -> Trace:
  r"""Estimates the trace of the Hessian, with its standard error.

  .. math:: \operatorname{tr} H = \operatorname{tr} V^\top H V
    + \mathbb E_z \bigl[ z^\top P H P z \bigr], \qquad P = I - V V^\top

  with random signs z (Hutchinson), and V the basis of ``deflate`` Lanczos
  steps. Without deflation the variance is :math:`2 \sum_{i \ne j} H_{ij}^2`: a
  diagonal Hessian needs one probe. With it, the part of the leading eigenvalues
  is exact, as in Hutch++, and only the rest is sampled.

  Args:
    loss_fn: as in ``hessian_top``.
    params: as in ``hessian_top``.
    batches: as in ``hessian_top``.
    probes: number of random directions, ``>= 1``; each costs one
      Hessian-vector product over all batches, one after another.
    deflate: Lanczos steps, ``>= 0``; at most n, the number of parameters, are
      made: then the trace is exact. It holds that many directions.
    leaves: as in ``hessian_top``: the trace of this block.
    key: of the directions.

  Returns:
    A ``Trace``.

  Raises:
    ValueError: as ``hessian_top`` does.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> loss = lambda p, x: jnp.mean((x * p['w'][None]) ** 2)
    >>> x = jnp.asarray([[1.0, 2.0]])  # H = diag(1, 4)
    >>> found = hessian_trace(
    ...   loss, {'w': jnp.ones(2)}, [x], probes=2, key=jax.random.key(0))
    >>> found.value.item(), found.error.item()
    (5.0, 0.0)

  Reference:
    Hutchinson, "A Stochastic Estimator of the Trace of the Influence Matrix for
    Laplacian Smoothing Splines", 1990; Meyer, Musco, Musco and Woodruff,
    "Hutch++: Optimal Stochastic Trace Estimation", 2020, arXiv:2010.09649.

  Differs from Hutch++ in deflating by a Krylov basis in place of a random
  sketch: both are exact on the range of the basis.
  """
  _checks.count('hessian_trace', 'probes', probes)
  _checks.count('hessian_trace', 'deflate', deflate, least=0)
  given, chosen = product.problem(
    'hessian_trace', loss_fn, params, batches, leaves, key
  )
  size = product.size(given.params, chosen)
  return _trace(given, chosen, probes, min(deflate, size))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _trace(
  given: product.Problem, chosen: product.Chosen, probes: int, deflate: int
) -> Trace:
  """Deflates, then averages the quadratic forms of the probes."""
  names, zeros = product.directions(given.params, chosen)
  apply = product.product('hessian_trace', given, chosen)
  of_basis, of_probes = jax.random.split(given.key)
  basis, known = None, jnp.zeros((), _directions.inner(zeros, zeros).dtype)
  if deflate:
    drawn = lanczos.random(of_basis, names, zeros, deflate)
    found = lanczos.krylov(apply, drawn, chosen)
    basis, known = found.basis, jnp.sum(found.alphas)

  def sample(key: types.PRNGKey) -> types.Array:
    probe = lanczos.signs(key, names, zeros)
    if basis is not None:
      rows = [x[None] for x in probe]
      rows = lanczos.project_off(basis, lanczos.project_off(basis, rows))
      probe = [x[0] for x in rows]
    return known + _directions.inner(probe, apply(probe))

  samples = jax.lax.map(sample, jax.random.split(of_probes, probes))
  spread = jnp.std(samples, ddof=1) if probes > 1 else known * jnp.nan
  return Trace(jnp.mean(samples), spread / probes**0.5, samples)
