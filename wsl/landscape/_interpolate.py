"""The straight line between two models."""

from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types


def interpolate(
  a: types.Params,
  b: types.Params,
  t: types.Numbers,
  *,
  check_finite: bool = True,
) -> types.Params:
  r"""Returns the point at ``t`` on the line through two models.

  .. math:: \theta(t) = (1 - t) \, \theta_a + t \, \theta_b

  Args:
    a: the model at ``t = 0``, leaves ``[...]``, in memory or on demand.
    b: the model at ``t = 1``, with the names, shapes and dtypes of ``a``.
    t: a number, which may be traced; outside [0, 1] it extrapolates. Or one for
      each leaf, by a dict of regular expressions that covers all leaves,
      ``{r'layers_(\d+)/attn': 0.3, '.*': 0.5}``, or a prefix tree,
      ``{'encoder': 0.3, 'head': 1.0}``; see ``tree.scalars``.
    check_finite: whether a value that is not finite where both models are (an
      overflow of the dtype) is an error; traced values and those on demand are
      not checked.

  Returns:
    A tree like ``a``, computed in float32 or wider and returned in the dtypes
    of ``a``; integer leaves are those of ``a``.

  Raises:
    ValueError: naming the leaf in which the models differ, also in integers
      (see ``tree.check_weights``), or whose result is not finite; or if ``t``
      is an array, or does not cover the leaves.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'w': jnp.zeros(2)}, {'w': jnp.asarray([4.0, 8.0])}
    >>> interpolate(a, b, 0.25)['w'].tolist()
    [1.0, 2.0]
    >>> a, b = ({'v': x, 'w': x} for x in (a['w'], b['w']))
    >>> interpolate(a, b, {'v': 0.0, 'w': 0.5})['w'].tolist()
    [2.0, 4.0]
  """
  b = check_alike(a, b, name='interpolate')
  numbers = tree.scalars('interpolate', 't', t, a)
  tree.check_weights('interpolate', {'a': a, 'b': b})
  result = jax.tree.map(
    lambda x, y, t: tree.apply_kernel(_line, x, y, t=t) if _is_float(x) else x,
    a,
    b,
    numbers,
  )
  if check_finite:
    remedy = 'it overflows its dtype: tree.cast both models to a wider one'
    tree.check_finite('interpolate', result, a, b, remedy=remedy)
  return result


def check_alike(a: types.Params, b: types.Params, *, name: str) -> types.Params:
  """Checks that two models agree in names, shapes and dtypes.

  Args:
    a: a model.
    b: a model that should have the structure, shapes and dtypes of ``a``.
    name: the public function, named in error messages.

  Returns:
    ``b`` in the containers of ``a``.

  Raises:
    ValueError: naming the first difference.
  """
  b = tree.conform(f'{name}: model b', b, 'model a', a)
  theirs = tree.named(b)
  for leaf, x in tree.named(a).items():
    pairs = zip(_shape_and_dtype(x), _shape_and_dtype(theirs[leaf]))
    for attribute, (of_a, of_b) in zip(('shape', 'dtype'), pairs):
      if of_a != of_b:
        raise ValueError(
          f"{name}: leaf '{leaf}' has {attribute} {of_a} in a but {of_b} in b"
        )
  return b


def _shape_and_dtype(x: Any) -> tuple[Any, Any]:
  """Returns the shape and dtype of an array, a leaf on demand or a number."""
  if hasattr(x, 'dtype'):
    return x.shape, x.dtype
  return jnp.shape(x), jnp.result_type(x)


def _is_float(x: Any) -> bool:
  return bool(jnp.issubdtype(_shape_and_dtype(x)[1], jnp.inexact))


def _line(a: Any, b: Any, *, t: Any) -> types.Array:
  """Interpolates a leaf in float32 or wider, and rounds once."""
  a = jnp.asarray(a)
  start, end = tree.wide(a), tree.wide(jnp.asarray(b))
  t = jnp.asarray(t).astype(start.dtype)
  return ((1 - t) * start + t * end).astype(a.dtype)
