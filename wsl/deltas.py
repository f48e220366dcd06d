"""From models to task vectors, and from a delta to a model.

Shapes are checked here, with the leaf's name in the message, so that nothing
broadcasts silently inside a method.

Leaves that are not weights: an integer (or bool) leaf is ``None`` in the deltas
and copied from the base by ``apply``. It must be equal in all models, except a
single number (a counter): integers that differ are usually quantised weights. A
running statistic stored as floats is merged like a weight, so leave it out of
the tree, or recompute it after the merge.

Without ``jax_enable_x64``, leaves of float64 are computed in float64 too, and
are numpy arrays; inside ``jit`` they are an error.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


def stack(
  base: types.Params,
  models: Sequence[types.Params],
  *,
  dtype: Any = None,
) -> types.Deltas:
  r"""Subtracts the base from T models and stacks the differences.

  .. math:: \tau_t = \theta_t - \theta_0

  Args:
    base: the model that the others were trained from, leaves ``[...]``.
    models: T >= 1 models of the base's structure, shapes and dtypes.
    dtype: the dtype of the task vectors; float32, or the base's dtype if that
      is wider, by default.

  Returns:
    Task vectors, leaves ``[T, ...]``; ``None`` at integer leaves. The stack of
    a leaf on demand is on demand.

  Raises:
    ValueError: if there is no model, or a model differs from the base in
      structure, shape, dtype or integers, or contains NaN or inf; the message
      names the leaf. (Values are not checked in a trace, nor on demand:
      ``checkpoint.load`` checks those when it reads them.)

  Example:
    >>> import jax.numpy as jnp
    >>> base = {'w': jnp.ones(2)}
    >>> stack(base, [{'w': jnp.asarray([1.0, 3.0])}])['w'].tolist()
    [[0.0, 2.0]]
  """
  if not models:
    raise ValueError('stack: no models given, at least one is needed')
  if isinstance(models, dict):
    raise ValueError(
      'stack: the models are a dict, expected a list: give [model] for one, '
      'list(models.values()) for many'
    )
  base, *models = check(
    'stack', {'base': base} | {f'model {t}': m for t, m in enumerate(models)}
  )
  hyper = tree.output_dtype('stack', base, dtype)
  return jax.tree.map(
    lambda x, *rest: (
      tree.apply_kernel(_differences, x, *rest, **hyper)
      if tree.is_float(x)
      else None
    ),
    base,
    *models,
  )


def check(label: str, models: Mapping[str, types.Params]) -> list[types.Params]:
  """Checks structure, shapes, dtypes and values of several models.

  Values of floats must be finite; integers must be equal, see
  ``tree.check_weights``.

  Args:
    label: the calling function, with which the message begins.
    models: the models by the name that messages use; all are compared with the
      first.

  Returns:
    The models, all in the containers of the first: a FrozenDict takes the place
    of a dict. Trees that differ in more are converted by ``tree.like``.

  Raises:
    ValueError: naming the model and the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> check('mix', {'a': {'w': jnp.ones(2)}, 'b': {'w': jnp.ones(3)}})
    Traceback (most recent call last):
    ...
    ValueError: mix: b: leaf 'w' has shape (3,), a has (2,): ...
  """
  first, *others = models
  _check_arrays(f'{label}: {first}', models[first])
  same = [models[first]]
  for other in others:
    _check_arrays(f'{label}: {other}', models[other])
    same.append(
      _check_same(f'{label}: {other}', models[other], first, models[first])
    )
  for name, model in models.items():
    _check_finite(f'{label}: {name}', model)
  tree.check_weights(label, dict(zip(models, same)))
  return same


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
    delta: one task vector, leaves ``[...]``; ``None`` keeps the base's leaf, an
      integer or a weight that is not merged.
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
  _check_arrays('apply: the base', base)
  _check_arrays('apply: the delta', delta)
  delta = tree.conform(
    'apply: the delta', delta, 'the base', base, is_leaf=is_none
  )
  leaves = tree.named(base, is_leaf=is_none)
  for name, d in tree.named(delta).items():
    _check_fits(name, d, leaves[name])
  hyper = tree.output_dtype('apply', base, dtype)
  coefs = tree.scalars('apply', 'coef', coef, base)

  def add(x: Any, d: Any, c: Any) -> Any:
    if d is not None:
      return tree.apply_kernel(_add, x, d, coef=c, **hyper)
    cast = hyper and x is not None and tree.is_float(x)
    return tree.apply_kernel(tree.cast_leaf, x, **hyper) if cast else x

  result = jax.tree.map(add, base, delta, coefs, is_leaf=is_none)
  if check_finite:
    tree.check_finite('apply', result, base, remedy=_REMEDY)
  return result


# The end of messages about a result that is not finite.
_REMEDY = (
  'beyond its dtype (give dtype=) or not finite in the delta (a singular '
  'matrix?); check_finite=False accepts it'
)


def _differences(
  base: types.Array, *models: types.Array, dtype: np.dtype | None = None
) -> types.Array:
  """Stacks the differences of one leaf, in float32 or wider."""
  stack = jnp.stack([tree.wide(m) - tree.wide(base) for m in models])
  return stack if dtype is None else stack.astype(dtype)


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


def _check_fits(name: str, delta: types.Array, base: Any) -> None:
  """Checks one leaf of a delta against the base's leaf of that name."""
  if base is None or not tree.is_float(base):
    raise ValueError(
      f"apply: the base has no float leaf '{name}', the delta has: make it None"
    )
  found, wanted = tuple(delta.shape), tuple(base.shape)
  if found != wanted:
    stacked = found[1:] == wanted
    remedy = 'merge the stack first' if stacked else 'it is of another model'
    raise ValueError(
      f"apply: delta leaf '{name}' has shape {found}, the base {wanted}: "
      f'{remedy}'
    )


def _check_arrays(label: str, model: types.Tree) -> None:
  """Checks that every leaf is an array or on demand."""
  for name, leaf in tree.named(model).items():
    if not hasattr(leaf, 'dtype'):
      raise ValueError(
        f"{label}: leaf '{name}' is a {type(leaf).__name__}, not an array: "
        'wrap it by jnp.asarray'
      )


def _check_same(
  label: str, model: types.Tree, other_label: str, other: types.Tree
) -> types.Tree:
  """Checks names, shapes and dtypes; returns the model like the other."""
  model = tree.conform(label, model, other_label, other)
  wanted = tree.named(other)
  for name, leaf in tree.named(model).items():
    for what in ('shape', 'dtype'):
      found, expected = getattr(leaf, what), getattr(wanted[name], what)
      if found != expected:
        cast = what == 'dtype'
        remedy = 'cast it by tree.cast' if cast else 'leave it out or resize it'
        raise ValueError(
          f"{label}: leaf '{name}' has {what} {found}, {other_label} has "
          f'{expected}: {remedy}'
        )
  return model


def _check_finite(label: str, model: types.Tree) -> None:
  """Checks the values of leaves that are in memory and not traced."""
  for name, leaf in tree.named(model).items():
    known = not isinstance(leaf, (jax.core.Tracer, tree.Stored, tree.Computed))
    if known and (bad := tree.count_bad(leaf)):
      raise ValueError(
        f"{label}: leaf '{name}' holds {bad} NaN or infinite "
        f'{"value" if bad == 1 else "values"}: repair or leave out that model'
      )
