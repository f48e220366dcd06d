"""The leading eigenpairs of the Hessian of a loss."""

from collections.abc import Callable, Iterable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import types
from wsl.landscape import _checks
from wsl.landscape._hessian import lanczos, product

_ORDERS = ('value', 'magnitude')


class Eigenpairs(NamedTuple):
  r"""The leading eigenpairs of a Hessian.

  Attributes:
    values: ``[count]``, the leading one first.
    vectors: of length 1, a tree like the model with leaves ``[count, ...]``;
      None at leaves that are not differentiated.
    errors: ``[count]``: the norm of :math:`H v - \lambda v`. An eigenvalue of
      the Hessian lies within this distance of the value.
  """

  values: types.Array
  vectors: types.Tree
  errors: types.Array


def hessian_top(
  loss_fn: Callable[[types.Params, Any], types.Array],
  params: types.Params,
  batches: Iterable[Any],
  *,
  count: int = 1,
  steps: int = 30,
  order: str = 'value',
  leaves: types.Leaves | None = None,
  key: types.PRNGKey,
) -> Eigenpairs:
  r"""Computes the leading eigenpairs of the Hessian by Lanczos.

  .. math:: V^\top H V = T = Y \operatorname{diag}(\lambda) Y^\top, \qquad
    v_i = V y_i, \qquad \|H v_i - \lambda_i v_i\| = \beta_m |y_{m,i}|

  with an orthonormal basis V of the Krylov space of a random direction, and H
  the Hessian of the mean loss over all examples. All is one compiled program of
  ``steps`` Hessian-vector products over all batches, with full
  reorthogonalisation; it holds ``steps`` directions of the size of the model.
  The batches are in memory together.

  Args:
    loss_fn: maps (params, batch) to the mean loss of a batch, a number; twice
      differentiable. Pass the same object again to compile once.
    params: the model, leaves ``[...]``. It is differentiated at its values in
      float32 or wider.
    batches: an iterable of ``inputs`` or tuples ``(inputs, ...)``, with a
      leading axis of examples; each counts by its size. They may be sharded.
    count: number of eigenpairs, ``1 <= count <= steps``.
    steps: Lanczos steps m, ``>= 1``; at most n, the number of parameters, are
      made, which is exact.
    order: ``'value'`` takes the largest eigenvalues, ``'magnitude'`` those of
      the largest absolute value, as power iteration does.
    leaves: which leaves to differentiate: a regular expression or a predicate
      on (name, shape); all if None. Integer leaves never are.
    key: of the first direction.

  Returns:
    ``Eigenpairs``.

  Raises:
    ValueError: naming the argument out of range, the complex leaf, or the shape
      of the loss; if there is no batch.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> loss = lambda p, x: jnp.mean((x * p['w'][None]) ** 2)
    >>> x = jnp.asarray([[1.0, 2.0]])  # H = diag(1, 4)
    >>> found = hessian_top(
    ...   loss, {'w': jnp.ones(2)}, [x], count=2, key=jax.random.key(0))
    >>> [f'{v:.3f}' for v in found.values]
    ['4.000', '1.000']

  Reference:
    Ghorbani, Krishnan and Xiao, "An Investigation into Neural Net Optimization
    via Hessian Eigenvalue Density", 2019, arXiv:1901.10159; Yao et al.,
    "PyHessian: Neural Networks Through the Lens of the Hessian", 2019,
    arXiv:1912.07145.

  Differs from PyHessian, which deflates a power iteration: Lanczos needs fewer
  products for the same error, returns a bound of it, and finds repeated
  eigenvalues.
  """
  _checks.count('hessian_top', 'steps', steps)
  _checks.count('hessian_top', 'count', count, most=steps, name='steps')
  _checks.choice('hessian_top', 'order', order, _ORDERS)
  given, chosen = product.problem(
    'hessian_top', loss_fn, params, batches, leaves, key
  )
  size = product.size(given.params, chosen)
  if count > size:
    raise ValueError(
      f'hessian_top: count={count}, but the chosen leaves have {size} '
      'parameters'
    )
  return _top(given, chosen, min(steps, size), count, order)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _top(
  given: product.Problem,
  chosen: product.Chosen,
  steps: int,
  count: int,
  order: str,
) -> Eigenpairs:
  """Runs Lanczos, and takes the leading Ritz pairs."""
  names, zeros = product.directions(given.params, chosen)
  drawn = lanczos.random(given.key, names, zeros, steps)
  apply = product.product('hessian_top', given, chosen)
  found = lanczos.krylov(apply, drawn, chosen)
  values, vectors = lanczos.ritz(found)
  rank = jnp.abs(values) if order == 'magnitude' else values
  leading = jnp.argsort(-rank)[:count]
  values, vectors = values[leading], vectors[:, leading]
  pairs = product.keep(
    [lanczos.combine(b, vectors) for b in found.basis], chosen
  )
  return Eigenpairs(
    values=values,
    vectors=product.as_tree(given.params, chosen, pairs),
    errors=found.betas[-1] * jnp.abs(vectors[-1]),
  )
