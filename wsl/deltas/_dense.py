"""Products of factors: at once, on demand, and the kernel of both."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.deltas import _factors


def dense(delta: types.Tree) -> types.Tree:
  """Replaces factors by their products, ``s B A`` in the leaf's layout.

  Args:
    delta: a task vector, or a stack of them by ``adapters.stack``, or one leaf.

  Returns:
    The tree with an array of ``shape``, or ``[T, *shape]``, for each leaf in
    factors, in float32 or wider; on demand if the factors are. Other leaves
    stay as they are.

  Raises:
    ValueError: if factors do not have the shapes of a leaf, naming it.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(1,), columns=(0,))
    >>> a, b = jnp.asarray([[1.0, 2.0]]), jnp.asarray([[1.0], [3.0]])
    >>> one = adapters.Factors(a, b, 1.0, (2, 2), view)
    >>> {k: x.tolist() for k, x in dense({'w': one, 'b': b}).items()}
    {'b': [[1.0], [3.0]], 'w': [[1.0, 2.0], [3.0, 6.0]]}
  """

  def leaf(name: str, x: Any) -> Any:
    if not _factors.is_factors(x):
      return x
    _factors.check_shapes('dense', name, x)
    return _product(x)

  return tree.map_named(leaf, delta, is_leaf=_factors.is_factors)


def on_demand(delta: types.Tree) -> types.Tree:
  """Replaces factors by their products on demand, and arrays by themselves."""

  def leaf(name: str, x: Any) -> Any:
    if _factors.is_factors(x):
      _factors.check_shapes('merge', name, x)
      x = ready(x)
      return _product(dataclasses.replace(x, a=tree.defer(x.a)))
    return tree.defer(x) if hasattr(x, 'dtype') else x

  return tree.map_named(leaf, delta, is_leaf=_factors.is_factors)


def ready(x: _factors.Factors) -> _factors.Factors:
  """Returns factors in float32 or wider, each an input of programs of its own.

  A program computes a leaf in chunks if its product is of arrays, or of leaves
  that are fetched: what is computed from files (a sum of LoRAs) is computed
  when a leaf is read, and once for all of its chunks.
  """
  dtype = tree.wide_dtype(x.a, x.b)

  def one(factor: Any) -> Any:
    wide = factor
    if factor.dtype != dtype:
      cast = {'dtype': tree.Static(dtype)}
      wide = tree.apply_kernel(tree.cast_leaf, factor, **cast)
    if not tree.on_demand(wide) or tree.is_traced(wide):
      return wide
    fetch = lambda: np.asarray(tree.read(wide))
    return tree.Stored(fetch, tuple(wide.shape), wide.dtype)

  return dataclasses.replace(x, a=one(x.a), b=one(x.b))


def _product(x: _factors.Factors) -> Any:
  """Returns the product of the factors of one leaf."""
  return tree.apply_kernel(
    product,
    x.a,
    x.b,
    scale=x.scale,
    shape=tree.Static(tuple(x.shape)),
    view=tree.Static(x.view),
  )


def product(
  a: types.Array,
  b: types.Array,
  *,
  scale: types.Scalar,
  shape: tuple[int, ...],
  view: tree.Matrix,
) -> types.Array:
  """Returns s B A in the layout of a leaf, with the axis of models if s has."""
  wide = tree.wide_dtype(a, b)
  scale = jnp.asarray(scale).astype(wide)
  if scale.ndim:
    one = functools.partial(product, shape=shape, view=view)
    return jax.vmap(lambda a, b, s: one(a, b, scale=s))(a, b, scale)
  a, b = a.astype(wide), b.astype(wide)
  view = view.fit(shape)
  order = list(range(len(shape)))
  # In the order of the axes of the leaf, so that nothing is transposed.
  if a.ndim == 2 and [*view.columns, *view.rows] == order:
    return (tree.matmul(b, a) * scale).reshape(shape)
  if a.ndim == 2 and [*view.rows, *view.columns] == order:
    contract = (((0,), (1,)), ((), ()))
    found = jax.lax.dot_general(a, b, contract, precision='highest')
    return (found * scale).reshape(shape)
  matrices = jnp.matrix_transpose(tree.matmul(b, a) * scale)
  return view.join(matrices if a.ndim == 3 else matrices[None], shape)
