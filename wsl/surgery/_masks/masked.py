"""A weight with its mask, as one pytree node."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Masked:
  r"""A leaf of a sparse model.

  .. math:: W = V \odot M

  As a pytree node it has two leaves: floats, which are merged, and bools, which
  merges keep: ``deltas.stack`` refuses models of different masks, and
  ``deltas.apply`` returns the mask of the base. A method that fills in zeros,
  such as one on singular values, changes ``values`` only; ``unmask`` gives the
  weight, whose support is in the mask.

  Attributes:
    values: V, ``[...]``.
    mask: M, bools ``[...]``, True where the weight is kept.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import deltas, merge
    >>> keep = jnp.asarray([True, False, True])
    >>> model = lambda x: {'w': Masked(jnp.asarray(x), keep)}
    >>> models = [model([1.0, 0.0, 2.0]), model([3.0, 0.0, 4.0])]
    >>> mean = merge.mean(deltas.stack(models[0], models))
    >>> soup = deltas.apply(models[0], mean)
    >>> unmask(soup)['w'].tolist(), soup['w'].mask.tolist()
    ([2.0, 0.0, 3.0], [True, False, True])
  """

  values: types.Array
  mask: types.Array


def is_masked(node: Any) -> bool:
  """Returns True for a ``Masked`` node, for ``is_leaf`` of ``jax.tree.map``.

  Args:
    node: any node of a tree.

  Returns:
    Whether it is ``Masked``.

  Example:
    >>> is_masked({'w': 1})
    False
  """
  return isinstance(node, Masked)


def mask(params: types.Params, masks: types.Tree) -> types.Params:
  """Makes leaves sparse: each with a mask becomes a ``Masked`` node.

  Args:
    params: any pytree.
    masks: bools of the shapes of leaves, in a tree like ``params`` or by the
      names of leaves; ``None``, or no name, leaves a leaf dense.

  Returns:
    The parameters with ``Masked`` nodes, their values zero outside the mask; a
    leaf that was masked before has the new mask.

  Raises:
    ValueError: if a mask is not of bools, or fits no leaf, naming it.

  Example:
    >>> import jax.numpy as jnp
    >>> params = {'w': jnp.ones(2), 'b': jnp.ones(1)}
    >>> found = mask(params, {'w': jnp.asarray([True, False])})
    >>> found['w'].values.tolist(), found['b'].tolist()
    ([1.0, 0.0], [1.0])
  """
  given = {k: m for k, m in tree.named(masks).items() if m is not None}
  leaves = tree.named(params, is_leaf=is_masked)
  for name, found in given.items():
    if name not in leaves:
      hint = tree.nearest(name, list(leaves))
      raise ValueError(f"mask: '{name}' is no leaf of the parameters{hint}")
    leaf = leaves[name]
    shape = (leaf.values if is_masked(leaf) else leaf).shape
    if found.dtype != jnp.bool_ or tuple(found.shape) != tuple(shape):
      raise ValueError(
        f"mask: the mask of '{name}' is {found.dtype}{list(found.shape)}, the "
        f'leaf has shape {list(shape)}: give bools of that shape'
      )

  def of(name: str, leaf: Any) -> Any:
    if name not in given:
      return leaf
    values = leaf.values if is_masked(leaf) else leaf
    kept = tree.apply_kernel(_kept, values, given[name])
    return Masked(kept, given[name])

  return map_nodes(of, params)


def unmask(params: types.Params) -> types.Params:
  """Returns plain weights: ``values`` in the mask and zero elsewhere.

  Its gradient with respect to ``values`` is zero outside the mask, so training
  ``values`` through it keeps the mask.

  Args:
    params: any pytree with ``Masked`` nodes, in memory or on demand.

  Returns:
    The tree with an array for each node.

  Example:
    >>> import jax.numpy as jnp
    >>> keep = jnp.asarray([True, False])
    >>> unmask({'w': Masked(jnp.asarray([1.0, 5.0]), keep)})['w'].tolist()
    [1.0, 0.0]
  """

  def of(_: str, node: Any) -> Any:
    if not is_masked(node):
      return node
    return tree.apply_kernel(_kept, node.values, node.mask)

  return map_nodes(of, params)


def masks(params: types.Params) -> dict[str, types.Array]:
  """Returns the masks by the names of their leaves.

  Args:
    params: any pytree with ``Masked`` nodes.

  Returns:
    Bools by name; dense leaves are not named.

  Example:
    >>> import jax.numpy as jnp
    >>> keep = jnp.asarray([True, False])
    >>> masks({'a': {'w': Masked(jnp.ones(2), keep)}})['a/w'].tolist()
    [True, False]
  """
  nodes = tree.named(params, is_leaf=is_masked)
  return {name: x.mask for name, x in nodes.items() if is_masked(x)}


def density(params: types.Params) -> float:
  """Returns the part of the entries of all masked leaves that is kept.

  Args:
    params: any pytree; at least one leaf is ``Masked``.

  Returns:
    The density, 0 to 1.

  Raises:
    ValueError: if none is.

  Example:
    >>> import jax.numpy as jnp
    >>> keep = jnp.asarray([True, False, False, False])
    >>> density({'w': Masked(jnp.ones(4), keep), 'b': jnp.ones(9)})
    0.25
  """
  found = masks(params)
  if not found:
    raise ValueError('density: no leaf is masked: make a mask by mask(...)')
  kept = tree.total(jnp.sum, {k: m for k, m in found.items()})
  return float(kept) / sum(m.size for m in found.values())


def map_nodes(fn: Any, params: types.Params) -> types.Params:
  """Maps the arrays and ``Masked`` nodes of a tree with their names."""
  names = iter(tree.named(params, is_leaf=is_masked))
  return jax.tree.map(
    lambda node: fn(next(names), node), params, is_leaf=is_masked
  )


def _kept(values: types.Array, mask: types.Array) -> types.Array:
  """Returns the values in the mask, zero elsewhere (also where NaN)."""
  return jnp.where(mask, values, jnp.zeros((), values.dtype))
