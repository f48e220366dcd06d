"""Low-rank updates of sparse weights that keep their zeros: PERP."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from wsl import deltas, tree, types
from wsl.surgery._masks import masked as masked_lib

RULES = ('add', 'scale')
_IS_FACTORS = deltas.is_factors


def add_sparse(
  params: types.Params, factors: types.Tree, *, by: str = 'add'
) -> types.Params:
  r"""Adds low-rank updates to masked leaves, inside their masks.

  .. math:: W + s B A \odot M \quad (\text{'add'}), \qquad
    W \odot s B A \quad (\text{'scale'})

  ``'add'`` in the forward pass is MaskLoRA, where training and merge agree; as
  the merge of a plain LoRA it is LoRA-Prune. ``'scale'`` is ScaleLoRA.

  Args:
    params: any pytree with ``Masked`` nodes, in memory or on demand.
    factors: ``Factors`` of masked leaves, in a tree or by their names.
    by: ``'add'`` or ``'scale'``.

  Returns:
    The parameters; masks and other leaves as before, values in their dtypes.

  Raises:
    ValueError: if a leaf with factors is not masked, or shapes differ.

  Example:
    >>> import jax.numpy as jnp
    >>> keep = jnp.asarray([[True], [False]])
    >>> view = tree.Matrix(rows=(0,), columns=(1,))
    >>> one = deltas.Factors(jnp.ones((1, 2)), jnp.ones((1, 1)), 3.0, (2, 1),
    ...                      view)
    >>> params = {'w': masked_lib.Masked(jnp.asarray([[2.0], [0.0]]), keep)}
    >>> add_sparse(params, {'w': one})['w'].values.tolist()
    [[5.0], [0.0]]

  Reference:
    Zimmer et al., "PERP: Rethinking the Prune-Retrain Paradigm in the Era of
    LLMs", 2023, arXiv:2312.15230.

  Differs from the official code in the mask, which there is inferred from
  W != 0, so that a weight that is zero by chance is pruned.
  """
  if by not in RULES:
    hint = tree.nearest(by, RULES)
    raise ValueError(f"add_sparse: by={by!r}: expected 'add' or 'scale'{hint}")
  given = tree.named(factors, is_leaf=_IS_FACTORS)
  nodes = tree.named(params, is_leaf=masked_lib.is_masked)
  for name, one in given.items():
    node: Any = nodes.get(name)
    if not masked_lib.is_masked(node):
      hint = tree.nearest(name, list(nodes)) if node is None else ''
      raise ValueError(
        f"add_sparse: '{name}' is no masked leaf of the parameters{hint}"
      )
    if _IS_FACTORS(one) and one.stacked:
      raise ValueError(
        f"add_sparse: the factors of '{name}' are a stack: merge it by "
        'merge.sum, or take one'
      )
    if tuple(node.values.shape) != tuple(one.shape):
      raise ValueError(
        f"add_sparse: the factors of '{name}' are of a leaf {one.shape}, the "
        f'parameters have {tuple(node.values.shape)}'
      )

  def of(name: str, node: Any) -> Any:
    if name not in given:
      return node
    product = deltas.dense(given[name])
    kernel = {'add': _added, 'scale': _scaled}[by]
    values = tree.apply_kernel(kernel, node.values, node.mask, product)
    return dataclasses.replace(node, values=values)

  return masked_lib.map_nodes(of, params)


def unit_factors(
  params: types.Params, *, rank: int, matrices: tree.Matrices | None = None
) -> dict[str, deltas.Factors]:
  r"""Returns factors whose product is one everywhere, to start ScaleLoRA.

  .. math:: A = B = r^{-1/2}, \quad B A = 1, \quad W \odot B A = W

  All entries of the factors are equal, so their gradients are equal along the
  rank at the start, and gradient descent alone keeps the rank at 1: the authors
  train with dropout.

  Args:
    params: any pytree with ``Masked`` nodes.
    rank: r >= 1.
    matrices: which axes of the masked leaves are inputs, as in ``tree.views``.

  Returns:
    Factors in float32 or wider of each masked leaf that is a matrix, by name.

  Raises:
    ValueError: if the rank is below 1, or as ``tree.views``.

  Example:
    >>> import jax.numpy as jnp
    >>> keep = jnp.ones((3, 2), bool)
    >>> params = {'w': masked_lib.Masked(jnp.ones((3, 2)), keep)}
    >>> found = unit_factors(params, rank=4)['w']
    >>> found.a.shape, deltas.dense(found).tolist()
    ((4, 3), [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])

  Reference:
    Zimmer et al., "PERP: Rethinking the Prune-Retrain Paradigm in the Era of
    LLMs", 2023, arXiv:2312.15230.
  """
  tree.check_whole('unit_factors', rank=rank)
  if rank < 1:
    raise ValueError(f'unit_factors: rank={rank!r}: expected an integer >= 1')
  nodes = tree.named(params, is_leaf=masked_lib.is_masked)
  values = {k: x.values for k, x in nodes.items() if masked_lib.is_masked(x)}
  try:
    views = tree.views(values, matrices)
  except ValueError as error:
    raise ValueError(f'unit_factors: {error}') from None
  found = {}
  for name, leaf in values.items():
    view = views[name]
    if view is None or not view.is_matrix:
      continue
    found[name] = _units(leaf, view.fit(leaf.shape), rank)
  return found


def _units(leaf: Any, view: tree.Matrix, rank: int) -> deltas.Factors:
  """Returns factors with equal entries whose product is one."""
  groups, inputs, outputs = view.sizes(leaf.shape)
  lead = (groups,) if view.batch or view.groups > 1 else ()
  # (B A)_ij = sum of r products of r^(-1/2) r^(-1/2), which is 1.
  value, dtype = rank**-0.5, tree.wide_dtype(leaf)
  a = jnp.full((*lead, rank, inputs), value, dtype)
  b = jnp.full((*lead, outputs, rank), value, dtype)
  return deltas.Factors(a, b, 1.0, tuple(leaf.shape), view)


def _added(
  x: types.Array, mask: types.Array, product: types.Array
) -> types.Array:
  """Returns W + s B A inside the mask."""
  found = x.astype(product.dtype) + product
  return jnp.where(mask, found, 0).astype(x.dtype)


def _scaled(
  x: types.Array, mask: types.Array, product: types.Array
) -> types.Array:
  """Returns W s B A inside the mask."""
  found = x.astype(product.dtype) * product
  return jnp.where(mask, found, 0).astype(x.dtype)
