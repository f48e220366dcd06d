"""Twin-Merging: what tasks share, and what each adds, compressed."""

from typing import Any, NamedTuple

import jax

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _linear, _stack
from wsl.merge._sparse import dare, trim
from wsl.merge._spectral import low_rank

_COMPRESS = {name: name for name in ('svd', 'magnitude', 'random')}


class Twins(NamedTuple):
  """T models: a part that all share, and an exclusive part of each.

  Attributes:
    shared: the task vector of the shared model, every leaf ``[...]``.
    exclusive: T compressed differences to it: ``deltas.Factors`` at matrices
      for ``'svd'``, arrays ``[T, ...]`` elsewhere.
  """

  shared: types.Delta
  exclusive: types.Deltas


@deltas_lib.on_stacks
def twins(
  deltas: types.Deltas,
  *,
  density: Any,
  shared: types.Delta | None = None,
  compress: str = 'svd',
  key: types.PRNGKey | None = None,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> Twins:
  r"""Splits task vectors into a shared part and compressed exclusive parts.

  .. math:: v_t = \operatorname{compress}_\rho(\tau_t - \tau^*), \qquad
    \tau(x) = \tau^* + \sum_t w_t(x)\, v_t

  ``materialize(family, w)`` gives :math:`\tau(x)`; a router gives the weights:
  ``fit_router`` and ``route``, or any softmax of T numbers.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    density: rho, ``0 < rho <= 1``: the share of singular triplets, or of
      entries, that is kept in each matrix of each task. The authors keep 0.1.
    shared: the task vector of the shared model, every leaf ``[...]``; the mean
      by default. The authors take the sum times 0.29 for GLUE.
    compress: ``'svd'``, the leading singular triplets of each matrix, at least
      one; ``'magnitude'``, the largest entries of each leaf; or ``'random'``,
      entries drawn as in ``dare`` and divided by rho. Leaves of less than two
      axes are kept.
    key: of the draws; for ``'random'`` only.
    matrices: which leaves are matrices, as in ``tsv``; for ``'svd'`` only.
    otherwise: as in ``iso_c``; ``'mean'`` keeps such leaves. For ``'svd'``
      only.

  Returns:
    The family. With density 1, ``materialize(family, t)`` is the task vector of
    task t, whatever is shared.

  Raises:
    ValueError: if ``density`` is out of range, or traced for ``'svd'``, an
      option is unknown, a key is missing, or as ``tree.views``.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import merge
    >>> deltas = {'w': jnp.asarray([[[2.0, 1.0]], [[4.0, 3.0]]])}
    >>> family = twins(deltas, density=0.5, compress='magnitude')
    >>> family.shared['w'].tolist()
    [[3.0, 2.0]]
    >>> merge.materialize(twins(deltas, density=1.0), 0)['w'].round(4).tolist()
    [[2.0, 1.0]]

  Reference:
    Lu et al., "Twin-Merging: Dynamic Integration of Modular Expertise in Model
    Merging", 2024, arXiv:2406.15479.

  Differs from the official code, which stores dense products, keeps nothing of
  a matrix if rho times its smaller side is below 1, and counts entries by
  rounding down everywhere.
  """
  _stack.count('twins', deltas)
  compress = _checks.choose('twins: compress', compress, _COMPRESS)
  if (key is None) != (compress != 'random'):
    remedy = 'give key=' if key is None else "key= is for 'random' only"
    raise ValueError(f'twins(compress={compress!r}): {remedy}')
  meaning = 'the share that is kept'
  _checks.fraction('twins', 'density', density, meaning, positive=True)
  if shared is None:
    shared = _linear.mean(deltas)
  else:
    shared = _stack.one_delta('twins: shared', shared, deltas)
  rest = tree.map(_difference, deltas, shared)
  if compress == 'svd':
    if isinstance(density, jax.core.Tracer):
      raise ValueError(
        "twins(compress='svd'): density is traced, and sets shapes: give a "
        'number that is known'
      )
    tree.check_scalars('twins', density=density)
    exclusive = low_rank.factor(
      'twins', rest, float(density), None, matrices, otherwise
    )
    return Twins(shared, exclusive)
  large = jax.tree.map(lambda x: x if len(x.shape) > 2 else None, rest)
  if not jax.tree.leaves(large):
    return Twins(shared, rest)
  if key is None:
    kept = trim.keep_largest(
      'twins', large, density=density, scope='leaf', dialect='paper'
    )
  else:
    kept = dare.dare(large, rate=1 - density, key=key)
  is_none = lambda x: x is None
  exclusive = jax.tree.map(
    lambda x, y: x if y is None else y, rest, kept, is_leaf=is_none
  )
  return Twins(shared, exclusive)


def _difference(x: types.Array, shared: types.Array) -> types.Array:
  """Subtracts the shared part from each model, in float32 or wider."""
  wide = tree.wide(x)
  return (wide - shared.astype(wide.dtype)[None]).astype(x.dtype)
