"""Sparse weights whose outputs are nearest to those of the dense ones."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.surgery._masks import masked as masked_lib
from wsl.surgery._masks import scores

_ENTRIES = 1 << 24  # of the matrices that are solved at once


def reconstruct(
  params: types.Params,
  dense: types.Params,
  grams: types.Tree,
  *,
  damping: types.Scalar = 0.0,
) -> types.Params:
  r"""Fits each sparse layer to the outputs of the dense one, in closed form.

  .. math:: \min_{w \in \mathrm{supp}(M_j)} \lVert X w - X w^0_j \rVert^2
    + \lambda \lVert w - w^0_j \rVert^2
    \quad\Rightarrow\quad
    (G_\lambda)_{SS}\, w_S = (G_\lambda)_{S:}\, w^0_j, \qquad
    G_\lambda = G + \lambda I

  for each output j with its own support S. It is the optimum of the layer-wise
  reconstruction for which PERP trains adapters, over all weights of the mask
  and not only low-rank updates. Give the Gram matrices of the inputs that the
  sparse layer sees, and its Gram products with the dense inputs are neglected.

  Args:
    params: any pytree with ``Masked`` nodes.
    dense: the weights before pruning, by the same names.
    grams: the ``Gram`` of each linear map, as ``stats.gram`` returns them for
      the dense model.
    damping: lambda relative to the mean of the diagonal of G, >= 0; 0.01 in
      SparseGPT.

  Returns:
    The parameters; masked leaves with a Gram matrix have new values. An input
    that was never active keeps the dense weight.

  Raises:
    ValueError: if the damping is negative, a masked leaf is missing in
      ``dense``, or no masked leaf has a Gram matrix.
    FloatingPointError: naming a leaf whose system is singular.

  Example:
    >>> import jax.numpy as jnp
    >>> gram = types.Gram(jnp.asarray([[[1.0, 0.5], [0.5, 1.0]]]))
    >>> w, keep = jnp.asarray([[2.0], [1.0]]), jnp.asarray([[True], [False]])
    >>> params = {'w': masked_lib.Masked(jnp.where(keep, w, 0), keep)}
    >>> found = reconstruct(params, {'w': w}, {'w': gram})
    >>> found['w'].values.tolist()
    [[2.5], [0.0]]

  Reference:
    Zimmer et al., "PERP: Rethinking the Prune-Retrain Paradigm in the Era of
    LLMs", 2023, arXiv:2312.15230; Frantar and Alistarh, "SparseGPT: Massive
    Language Models Can Be Accurately Pruned in One-Shot", 2023,
    arXiv:2301.00774.

  Differs from the official code of PERP, which trains adapters by gradient
  descent on the same loss.
  """
  tree.check_scalars('reconstruct', damping=damping)
  if not tree.is_traced(damping) and not float(damping) >= 0:
    raise ValueError(f'reconstruct: damping={damping}: expected at least 0')
  nodes = tree.named(params, is_leaf=masked_lib.is_masked)
  targets = tree.named(masked_lib.unmask(dense))
  of = {
    name: gram
    for name, (_, gram) in scores.with_grams(
      'reconstruct', params, grams
    ).items()
    if masked_lib.is_masked(nodes[name])
  }
  if not of:
    raise ValueError('reconstruct: no masked leaf has a Gram matrix')
  for name in of:
    shape = tuple(nodes[name].values.shape)
    if name not in targets or tuple(targets[name].shape) != shape:
      raise ValueError(
        f"reconstruct: dense has no leaf '{name}' of shape {shape}: give the "
        'weights before pruning'
      )

  last: Any = None

  def solved(name: str, node: Any) -> Any:
    nonlocal last
    if name not in of:
      return node
    gram, matrix = of[name], of[name].matrix
    if last is not None and tree.is_traced([last, matrix]):
      matrix = tree.after(matrix, last)
    values = tree.apply_kernel(
      _solve,
      node.values,
      node.mask,
      targets[name],
      matrix,
      view=tree.Static(scores.gram_view(node.values.shape, gram)),
      damping=damping,
    )
    known = not tree.on_demand(values) and not tree.is_traced(values)
    if known and not np.all(np.isfinite(values)):
      raise FloatingPointError(
        f"reconstruct: the Gram matrix of leaf '{name}' is singular on a "
        'support: give more examples, or damping=0.01'
      )
    last = values
    return dataclasses.replace(node, values=values)

  return masked_lib.map_nodes(solved, params)


def _solve(
  x: types.Array,
  mask: types.Array,
  target: types.Array,
  gram: types.Array,
  *,
  view: tree.Matrix,
  damping: types.Array,
) -> types.Array:
  """Solves the normal equations of every output of a leaf.

  With m the mask of one output, (m G m + diag(1 - m)) w = m G w0 has the wanted
  solution inside the mask, and zeros outside.
  """
  keep, whole = view.split(mask), view.split(target)
  dtype = tree.wide_dtype(x, target, gram)
  g, whole = gram.astype(dtype), whole.astype(dtype)
  diagonal = jnp.diagonal(g, axis1=-2, axis2=-1)
  unseen = diagonal == 0
  mean = jnp.mean(diagonal, axis=-1, keepdims=True)
  # An unseen input has a zero row: a one on the diagonal keeps its weight.
  added = jnp.where(unseen, 1, 0) + damping.astype(dtype) * mean
  g = g + added[..., None] * jnp.eye(g.shape[-1], dtype=dtype)[None]
  right = tree.matmul(g, whole)
  turn = jnp.matrix_transpose
  found = _by_outputs(g, turn(right), turn(keep))
  return view.join(turn(found), x.shape).astype(x.dtype)


def _by_outputs(
  g: types.Array, right: types.Array, keep: types.Array
) -> types.Array:
  """Solves one system for each output, ``[B, n, d]``, some at a time.

  The steps follow each other, each with one batch of decompositions: two at
  once would occupy the threads in which they wait, see ``tree.after``.
  """
  groups, n, d = right.shape
  count = groups * n
  size = max(1, min(count, _ENTRIES // d**2))

  def step(given: tuple[types.Array, ...]) -> types.Array:
    b, m, group = given
    both = m[:, :, None] & m[:, None, :]
    rest = (
      jnp.where(m, 0, 1).astype(g.dtype)[..., None]
      * jnp.eye(d, dtype=g.dtype)[None]
    )
    factor = jax.scipy.linalg.cho_factor(
      jnp.where(both, g[group], rest), lower=True
    )
    wanted = jnp.where(m, b, 0)[..., None]
    return jax.scipy.linalg.cho_solve(factor, wanted)[..., 0]

  # Outputs without inputs fill the last step: their system is the identity.
  fill = -count % size
  chunks = lambda x: jnp.pad(x, [(0, fill), *[(0, 0)] * (x.ndim - 1)]).reshape(
    -1, size, *x.shape[1:]
  )
  group = jnp.repeat(jnp.arange(groups), n)
  given = (right.reshape(count, d), keep.reshape(count, d), group)
  found = jax.lax.map(step, tuple(map(chunks, given)))
  return found.reshape(-1, d)[:count].reshape(right.shape)
