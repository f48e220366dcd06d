"""From a delta to a model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.deltas import _check, _dense, _factors


def apply(
  base: types.Params,
  delta: types.Delta,
  *,
  coef: types.Numbers = 1.0,
  dtype: Any = None,
  check_finite: bool = True,
) -> types.Params:
  r"""Adds a delta to the base.

  .. math:: \theta = \theta_0 + \lambda \tau

  Args:
    base: leaves ``[...]``.
    delta: one task vector, leaves ``[...]`` or ``Factors``, whose products are
      added leaf by leaf; ``None`` keeps the base's leaf, an integer or a weight
      that is not merged.
    coef: the coefficient lambda, a number that may be traced; or one for each
      leaf of the base, by a dict of regular expressions that covers all leaves,
      ``{r'layers_(\d+)/attn': 0.3, '.*': 0.5}``, or a prefix tree,
      ``{'encoder': 0.3, 'head': 1.0}``; ``tree.scalars`` says how the two are
      told apart. A coefficient for each model is a weight of the merge.
    dtype: the dtype of float leaves in the result; the base's by default.
    check_finite: whether a value that is not finite where the base is (an
      overflow of float16 or float8, or a NaN of the merge) is an error. Values
      are not checked in a trace; those on demand are checked by
      ``checkpoint.save``.

  Returns:
    A model of the base's structure and dtypes.

  Raises:
    ValueError: if the delta has another structure or shape than the base, or
      ``coef`` is an array, or does not cover the leaves, or a value of the
      result is not finite, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> apply({'w': jnp.ones(2)}, {'w': jnp.ones(2)}, coef=0.5)['w'].tolist()
    [1.5, 1.5]
    >>> both = {'a': jnp.ones(1), 'b': jnp.ones(1)}
    >>> merged = apply(both, both, coef={'^a': 0.5, '.*': 3.0})
    >>> merged['a'].item(), merged['b'].item()
    (1.5, 4.0)

  Reference:
    Ilharco et al., "Editing Models with Task Arithmetic", 2023,
    arXiv:2212.04089.
  """
  is_none = lambda x: x is None
  is_leaf = lambda x: x is None or _factors.is_factors(x)
  _check.arrays('apply: the base', base)
  _check.arrays('apply: the delta', delta)
  delta = tree.conform(
    'apply: the delta', delta, 'the base', base, is_leaf=is_leaf
  )
  leaves = tree.named(base, is_leaf=is_none)
  hyper = tree.output_dtype('apply', base, dtype)
  for name, d in tree.named(delta, is_leaf=_factors.is_factors).items():
    _check_fits(name, d, leaves[name], hyper.get('dtype'))
  coefs = tree.scalars('apply', 'coef', coef, base)
  # Leaves of arrays are planned, and computed together.
  lazy = tree.on_demand((base, delta))
  planned = lambda x: x if lazy else tree.defer(x)

  def add(x: Any, d: Any, c: Any) -> Any:
    if _factors.is_factors(d):
      d = _dense.ready(d) if tree.on_demand((x, d)) else d
      factors = {'scale': d.scale, 'view': tree.Static(d.view)}
      return tree.apply_kernel(
        _add_product, planned(x), d.a, d.b, coef=c, **factors, **hyper
      )
    if d is not None:
      return tree.apply_kernel(_add, planned(x), d, coef=c, **hyper)
    cast = hyper and x is not None and tree.is_float(x)
    return tree.apply_kernel(tree.cast_leaf, planned(x), **hyper) if cast else x

  result = jax.tree.map(add, base, delta, coefs, is_leaf=is_none)
  result = result if lazy else tree.read(result)
  if check_finite:
    tree.check_finite('apply', result, base, remedy=_REMEDY)
  return result


# The end of messages about a result that is not finite.
_REMEDY = (
  'beyond its dtype (give dtype=) or not finite in the delta (a singular '
  'matrix?); check_finite=False accepts it'
)


def _add(
  base: types.Array,
  delta: types.Array,
  *,
  coef: types.Scalar,
  dtype: np.dtype | None = None,
) -> types.Array:
  """Adds the scaled delta in float32 or wider, and rounds once."""
  wide = tree.wide(base)
  wide = wide if dtype is None else wide.astype(tree.wide_dtype(wide, dtype))
  coef = jnp.asarray(coef).astype(wide.dtype)
  added = wide + coef * delta.astype(wide.dtype)
  return added.astype(base.dtype if dtype is None else dtype)


def _add_product(
  base: types.Array,
  a: types.Array,
  b: types.Array,
  *,
  scale: types.Scalar,
  view: tree.Matrix,
  **hyper: Any,
) -> types.Array:
  """Adds the product of factors."""
  delta = _dense.product(a, b, scale=scale, shape=base.shape, view=view)
  return _add(base, delta, **hyper)


def _check_fits(
  name: str, delta: Any, base: Any, dtype: tree.Static | None
) -> None:
  """Checks one leaf of a delta against the base's leaf of that name."""
  if base is None or not tree.is_float(base):
    raise ValueError(
      f"apply: the base has no float leaf '{name}', the delta has: make it None"
    )
  if _factors.is_factors(delta):
    _factors.check_shapes('apply', name, delta)
  parts = jax.tree.leaves(delta) if _factors.is_factors(delta) else [delta]
  output = base if dtype is None else np.empty(0, dtype.value)
  if not tree.is_complex(output):
    for part in parts:
      if hasattr(part, 'dtype') and tree.is_complex(part):
        raise ValueError(
          f"apply: delta leaf '{name}' is {part.dtype}, the result "
          f'{output.dtype} would drop its imaginary part: give dtype=complex64'
        )
  found, wanted = tuple(delta.shape), tuple(base.shape)
  stack = _factors.is_factors(delta) and delta.stacked
  if found != wanted or stack:
    stacked = stack or found[1:] == wanted
    remedy = 'merge the stack first' if stacked else 'it is of another model'
    raise ValueError(
      f"apply: delta leaf '{name}' has shape {found}, the base {wanted}: "
      f'{remedy}'
    )
