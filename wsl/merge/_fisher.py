"""Fisher merging: weight every entry by its diagonal Fisher information."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _linear, _per_leaf, _stack

_ALL = tree.Entries(lead=1, neutral=0.0)


@deltas_lib.on_stacks
def fisher(
  deltas: types.Deltas,
  *,
  fishers: types.Deltas,
  floor: Any = 1e-6,
  normalize: bool = False,
  coefs: Any = 1.0,
) -> types.Delta:
  r"""Averages task vectors weighted by diagonal Fisher information.

  .. math:: \tau_p = \frac{\sum_t \lambda_t F_{t,p} \tau_{t,p}}
    {\sum_t \lambda_t F_{t,p}}

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    fishers: diagonals F_t >= 0, every leaf ``[T, ...]``:
      ``tree.stack([stats.fisher(...) for each model])``.
    floor: F becomes ``max(F, floor)``: a number, ``[T]``, or one for each leaf,
      ``{'attn': 1e-8, '.*': 1e-6}``, as in ``tree.scalars``. The authors'
      "favour the target" is ``floor=[1e-6, 0, ..., 0]``: where all F are
      smaller, the first model's value is taken.
    normalize: divides each F_t by its norm over the whole model (computed
      before the floor, as the authors do), so that scales are comparable.
    coefs: lambda_t, in the forms of ``floor``.

  Returns:
    The merged task vector, every leaf ``[...]``. Entries whose weights sum to
    zero are zero.

  Raises:
    ValueError: if ``fishers`` does not fit ``deltas``, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0], [3.0]])}
    >>> fisher(deltas, fishers={'w': jnp.asarray([[3.0], [1.0]])})['w'].tolist()
    [1.5]

  Reference:
    Matena and Raffel, "Merging Models with Fisher-Weighted Averaging", 2021,
    arXiv:2111.09832.

  For given diagonals it equals the official code. Other released code adds 1e-6
  instead of taking the maximum.
  """
  models = _stack.count('fisher', deltas)
  fishers = _check_fishers(deltas, fishers)
  factors, floors = (
    _per_leaf.at_leaves('fisher', name, value, deltas, models, lambda _: None)
    for name, value in (('coefs', coefs), ('floor', floor))
  )
  if normalize:
    # The weight is lambda max(F, floor) / |F|: the floor applies to F before
    # the norm does, so the norm divides the coefficients.
    norms = tree.statistic(
      lambda: jnp.sqrt(
        jnp.asarray(tree.total(_squares, fishers, entries=_ALL))
      ),
      fishers,
      shape=(models,),
      dtype=jax.dtypes.canonicalize_dtype(np.float64),
    )
    divide = functools.partial(tree.apply_kernel, _quotients, norms)
    if _per_leaf.is_per_leaf(coefs):
      factors = jax.tree.map(divide, factors)
    else:
      first = jax.tree.leaves(factors)[0]
      factors = tree.at_leaves(divide(first), factors)

  def steps(both: tuple[types.Deltas, types.Deltas]) -> types.Delta:
    deltas, fishers = both
    weigh = lambda x, floor, coefs: tree.apply_kernel(
      _raise, x, floor=floor, coefs=coefs
    )
    weights = jax.tree.map(weigh, fishers, floors, factors)
    return _linear.weighted_mean(deltas, weights)

  return _stack.fuse((deltas, fishers), steps)


def _raise(
  fisher: types.Array, *, floor: types.Array, coefs: types.Array
) -> types.Array:
  """Returns the weights ``coefs * max(fisher, floor)``, ``[T, ...]``."""
  wide = tree.wide(fisher)
  floor, coefs = floor.astype(wide.dtype), coefs.astype(wide.dtype)
  weight = lambda f, low, coef: jnp.maximum(f, low) * coef
  numbers = [_stack.expand_rank(v, wide) for v in (floor, coefs)]
  # Unrolled over models on a CPU only: see _linear.
  return jax.lax.platform_dependent(
    wide,
    *numbers,
    cpu=functools.partial(_stack.map_models, weight),
    default=weight,
  )


def _quotients(norms: types.Array, coefs: types.Array) -> types.Array:
  """Divides the coefficients by the norms, ``[T]``, in the norms' dtype."""
  return tree.safe_divide(coefs.astype(norms.dtype), norms)


def _squares(x: types.Array) -> types.Array:
  """Returns the squared norm of each model's part of a leaf, ``[T]``."""
  x = tree.wide(x)
  return tree.sum_entries(x * x)


def _check_fishers(deltas: types.Deltas, fishers: types.Deltas) -> types.Deltas:
  """Checks that every leaf has a Fisher diagonal of its own shape."""
  fishers = _stack.per_leaf('fisher: the fishers', fishers, deltas)
  tree.check_real('fisher: the fishers', fishers, 'expected real diagonals')
  found = tree.named(fishers)
  for name, x in tree.named(deltas).items():
    if tuple(found[name].shape) != tuple(x.shape):
      raise ValueError(
        f"fisher: leaf '{name}' of shape {tuple(x.shape)} has a Fisher "
        f'diagonal of shape {tuple(found[name].shape)}: stack one for each '
        'model by tree.stack'
      )
  return fishers
