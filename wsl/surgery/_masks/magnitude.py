"""Masks by magnitude or any other score: global, by leaf, by output, N:M."""

import math

import jax.numpy as jnp

from wsl import tree, types
from wsl.surgery._masks import scores as scores_lib

SCOPES = ('global', 'leaf', 'output')


def magnitude_masks(
  params: types.Params,
  *,
  sparsity: float,
  scope: str = 'global',
  leaves: types.Leaves | None = None,
  scores: types.Tree | None = None,
  matrices: tree.Matrices | None = None,
) -> dict[str, types.Array]:
  r"""Marks the entries that magnitude pruning keeps.

  .. math:: M_p = [\,|W_p| \ge m_k\,], \qquad k = N - \lfloor N S \rfloor

  where m_k is the k-th largest magnitude among the N entries of the scope.
  Entries of equal magnitude at the threshold are all kept. What an earlier mask
  removed stays removed and counts as removed.

  Args:
    params: any pytree, plain or with ``Masked`` nodes, in memory or on demand.
    sparsity: S, the part of the entries to remove, 0 <= S < 1.
    scope: where magnitudes are compared: ``'global'``, in all chosen leaves
      together; ``'leaf'``; or ``'output'``, among the inputs of each output
      unit, as Wanda does.
    leaves: the leaves of floats to prune, by a regular expression or a
      predicate. By default those of two axes or more that are no biases or norm
      scales by name.
    scores: scores whose magnitudes are compared instead of those of the
      weights, by the names of leaves, such as those of ``wanda_scores``.
    matrices: for ``'output'``, which axes are inputs, as in ``tree.views``.

  Returns:
    Bools of the shape of each chosen leaf, by its name, for ``mask``.

  Raises:
    ValueError: if the sparsity or the scope is out of range, no leaf is chosen,
      or a score is missing, of another shape or not finite.

  Example:
    >>> import jax.numpy as jnp
    >>> params = {'w': jnp.asarray([[1.0, -4.0], [3.0, 2.0]]), 'b': jnp.ones(2)}
    >>> magnitude_masks(params, sparsity=0.5)['w'].tolist()
    [[False, True], [True, False]]
    >>> magnitude_masks(params, sparsity=0.5, scope='output')['w'].tolist()
    [[False, True], [True, False]]

  Reference:
    Han et al., "Learning both Weights and Connections for Efficient Neural
    Networks", 2015, arXiv:1506.02626; Sun et al., "A Simple and Effective
    Pruning Approach for Large Language Models", 2023, arXiv:2306.11695.

  Differs from the official code of PERP, which prunes one entry more, and
  treats zeros as pruned: an entry that is zero by chance is kept here.
  """
  tree.check_scalars('magnitude_masks', sparsity=sparsity)
  if not 0 <= sparsity < 1:
    raise ValueError(
      f'magnitude_masks: sparsity={sparsity}: expected 0 <= sparsity < 1'
    )
  if scope not in SCOPES:
    hint = tree.nearest(scope, SCOPES)
    raise ValueError(
      f'magnitude_masks: scope={scope!r}: expected one of {list(SCOPES)}{hint}'
    )
  found = scores_lib.of_leaves('magnitude_masks', params, leaves, scores)
  masks = scores_lib.masks_of(params, found)
  # In floating point 0.29 * 100 is below 29: round down with a margin.
  kept = lambda size: size - math.floor(size * sparsity + 1e-6)
  if scope == 'output':
    views = scores_lib.views_of('magnitude_masks', found, matrices)
    return {
      name: tree.apply_kernel(
        _by_output,
        x,
        *masks[name],
        view=tree.Static(views[name]),
        keep=tree.Static(kept(views[name].sizes(x.shape)[1])),
      )
      for name, x in found.items()
    }
  stacks = {k: tree.apply_kernel(_one_model, x) for k, x in found.items()}
  if scope == 'global':
    size = sum(x.size for x in found.values())
    level = tree.kth_magnitude(stacks, kept(size))[0]
    levels = dict.fromkeys(found, level)
  else:
    ks = [jnp.full((1, 1), kept(x.size)) for x in found.values()]
    kth = tree.kth_in_leaves(list(stacks.values()), ks, names=list(stacks))
    levels = {name: x[0, 0] for name, x in zip(found, kth)}
  return {
    name: tree.apply_kernel(_reaching, x, *masks[name], level=levels[name])
    for name, x in found.items()
  }


def pattern_masks(
  params: types.Params,
  *,
  keep: int,
  of: int,
  leaves: types.Leaves | None = None,
  scores: types.Tree | None = None,
  matrices: tree.Matrices | None = None,
) -> dict[str, types.Array]:
  """Keeps the largest N of each M consecutive inputs of an output: N:M.

  Args:
    params: as in ``magnitude_masks``.
    keep: N, 1 to M; 2 for 2:4.
    of: M; it divides the number of inputs of each chosen leaf.
    leaves: as in ``magnitude_masks``.
    scores: as in ``magnitude_masks``.
    matrices: which axes are inputs, as in ``tree.views``.

  Returns:
    Bools by the names of leaves; exactly N of each M are True, the first ones
    of equal scores.

  Raises:
    ValueError: if N is not in 1 to M, or M does not divide the inputs.

  Example:
    >>> import jax.numpy as jnp
    >>> params = {'w': jnp.asarray([[4.0], [1.0], [-3.0], [2.0]])}
    >>> pattern_masks(params, keep=2, of=4)['w'].reshape(-1).tolist()
    [True, False, True, False]

  Reference:
    Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021,
    arXiv:2104.08378.
  """
  tree.check_whole('pattern_masks', keep=keep, of=of)
  if not 1 <= keep <= of:
    raise ValueError(f'pattern_masks: keep={keep}: expected 1 to of={of}')
  found = scores_lib.of_leaves('pattern_masks', params, leaves, scores)
  masks = scores_lib.masks_of(params, found)
  views = scores_lib.views_of('pattern_masks', found, matrices)
  for name, x in found.items():
    rows = views[name].sizes(x.shape)[1]
    if rows % of:
      raise ValueError(
        f'pattern_masks: of={of} does not divide the {rows} inputs of leaf '
        f"'{name}': leave it out by leaves="
      )
  static = {'keep': tree.Static(keep), 'of': tree.Static(of)}
  return {
    name: tree.apply_kernel(
      _by_pattern, x, *masks[name], view=tree.Static(views[name]), **static
    )
    for name, x in found.items()
  }


def _one_model(x: types.Array) -> types.Array:
  """Returns a leaf as a stack of one model."""
  return x[None]


def _reaching(
  x: types.Array, *mask: types.Array, level: types.Array
) -> types.Array:
  """Marks the entries at a level or above it, inside an earlier mask."""
  found = tree.reaches(x, level)
  return found & mask[0] if mask else found


def _by_output(
  x: types.Array, *mask: types.Array, view: tree.Matrix, keep: int
) -> types.Array:
  """Marks the largest scores of each column of each matrix."""
  # With the rows in ascending order, the k-th largest of m is row m - k.
  rows = view.split(x)
  level = jnp.sort(rows, axis=-2)[..., rows.shape[-2] - keep, :]
  found = view.join(rows >= level[..., None, :], x.shape)
  return found & mask[0] if mask else found


def _by_pattern(
  x: types.Array, *mask: types.Array, view: tree.Matrix, keep: int, of: int
) -> types.Array:
  """Marks the N largest of each M consecutive rows of each matrix."""
  if mask:
    x = jnp.where(mask[0], x, -1)
  rows = view.split(x)
  b, m, n = rows.shape
  blocks = rows.reshape(b, m // of, of, n)
  # The rank of each entry; a stable sort puts the first of equal ones first.
  rank = jnp.argsort(jnp.argsort(-blocks, axis=2, stable=True), axis=2)
  found = view.join((rank < keep).reshape(b, m, n), x.shape)
  return found & mask[0] if mask else found
