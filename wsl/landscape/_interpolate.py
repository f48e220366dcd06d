"""The straight line between two models."""

from typing import Any

import jax.numpy as jnp

from wsl import tree, types


def interpolate(
  a: types.Params, b: types.Params, t: types.Scalar
) -> types.Params:
  r"""Returns the point at ``t`` on the line through two models.

  .. math:: \theta(t) = (1 - t) \, \theta_a + t \, \theta_b

  Args:
    a: the model at ``t = 0``, leaves ``[...]``, in memory or on demand.
    b: the model at ``t = 1``, with the names, shapes and dtypes of ``a``.
    t: a number or a traced array of rank 0; outside [0, 1] it extrapolates.

  Returns:
    A tree like ``a``, computed in float32 or wider and returned in the dtypes
    of ``a``; integer leaves are those of ``a``.

  Raises:
    ValueError: naming the leaf in which the models differ, or if ``t`` is not
      of rank 0.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'w': jnp.zeros(2)}, {'w': jnp.asarray([4.0, 8.0])}
    >>> interpolate(a, b, 0.25)['w'].tolist()
    [1.0, 2.0]
  """
  b = check_alike(a, b, name='interpolate')
  if jnp.ndim(t):
    raise ValueError(
      f'interpolate: t has shape {jnp.shape(t)}, expected a number: use '
      'jax.vmap or jax.lax.map over several'
    )
  return tree.map(_interpolate_leaf, a, b, t=t)


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


def _interpolate_leaf(a: Any, b: Any, *, t: Any) -> types.Array:
  """Interpolates a float leaf; an integer leaf is that of a."""
  if not jnp.issubdtype(a.dtype, jnp.inexact):
    return a
  start, end = tree.wide(a), tree.wide(b)
  t = jnp.asarray(t).astype(start.dtype)
  return ((1 - t) * start + t * end).astype(a.dtype)
