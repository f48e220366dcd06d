"""Factors of a task vector by truncated singular value decompositions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from wsl import deltas, tree, types
from wsl.adapters import _checks
from wsl.adapters._decompose import budget, sketch

_ALIGN = 64


class Extraction(NamedTuple):
  """The factors of a task vector, and what they leave out.

  Attributes:
    factors: by the name of the leaf.
    rest: leaves that are no matrices, by name, as they are in the task vector.
    errors: for each leaf the norm of its difference to its factors, relative to
      its own: 0 of a leaf in ``rest``, and of one that is zero, which is in
      neither.
  """

  factors: dict[str, deltas.Factors]
  rest: dict[str, Any]
  errors: dict[str, float]


def extract(
  delta: types.Delta,
  *,
  rank: int | None = None,
  energy: float | None = None,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
  dtype: Any = None,
  key: types.PRNGKey | None = None,
  passes: int = 4,
  progress: Callable[[str, int, int], None] | None = None,
) -> Extraction:
  r"""Approximates each matrix of a task vector by factors of low rank.

  .. math:: \tau = U S V^\top \approx B A, \qquad
    B = U_r S_r^{1/2}, \quad A = S_r^{1/2} V_r^\top

  which is nearest to :math:`\tau` among all matrices of rank r. The relative
  error is :math:`(\sum_{i > r} s_i^2 / \sum_i s_i^2)^{1/2}` and the rounding to
  ``dtype``; it is measured on the factors.

  Leaves are read and decomposed one after the other, so that the memory is that
  of the largest. Vectors are no matrices: they are in ``rest`` unless they are
  zero. For a number of parameters in all, and ranks by leaf, see ``compress``:
  ``compress(extract(delta, rank=64).factors, parameters=10**6)``.

  Args:
    delta: the task vector, every leaf ``[...]``, on demand or not; ``None``
      leaves are left out.
    rank: the largest rank r >= 1. Singular values that are rounding errors have
      no factors: a leaf of lower rank has smaller ones.
    energy: the part of the squared norm of each matrix that its factors
      represent at least, 0 < energy <= 1. The rank is the smallest such, and
      at most ``rank`` if both are given.
    matrices: which leaves are matrices and which of their axes are inputs and
      outputs, as in ``tree.views``: ``tree.torch`` for the names of PyTorch. If
      None, leaves of two axes are ``[in, out]``, except biases and norm scales
      by name.
    otherwise: leaves of more than two axes without a rule: ``'refuse'``, or
      ``'keep'``: they are in ``rest``.
    dtype: the dtype of the factors; float32 or the leaf's, if wider, by
      default.
    key: a random key: subspaces are found by randomised subspace iteration, in
      a fraction of the time and memory for large matrices; needs ``rank``. The
      error exceeds the least one by parts in a thousand where singular values
      hardly fall, by nothing where they do. None: by decompositions.
    passes: the number of steps of the iteration, at least 1.
    progress: called after each leaf with its name, the bytes of the task
      vector that are done, and all of them.

  Returns:
    The factors, with scale 1, other leaves, and errors.

  Raises:
    ValueError: if neither rank nor energy is given, or one is out of range; if
      a matrix is complex, not finite, traced, or in factors; or as
      ``tree.views``, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> w = jnp.diag(jnp.asarray([3.0, 4.0, 0.0]))
    >>> found = extract({'w': w, 'b': jnp.ones(3)}, rank=1)
    >>> found.factors['w'].a.shape, list(found.rest)
    ((1, 3), ['b'])
    >>> round(found.errors['w'], 4)
    0.6
    >>> extract({'w': w}, energy=0.9).factors['w'].rank
    2

  Reference:
    Eckart and Young, "The approximation of one matrix by another of lower
    rank", 1936; Halko, Martinsson and Tropp, "Finding structure with
    randomness", 2011, arXiv:0909.4061; Hu et al., "LoRA: Low-Rank Adaptation of
    Large Language Models", 2021, arXiv:2106.09685.
  """
  _check(rank, energy, otherwise)
  _checks.dtype('extract', dtype)
  _checks.arrays('extract', delta, 'compress() reduces its rank')
  tree.check_whole('extract', passes=passes)
  if key is not None and (rank is None or passes < 1):
    raise ValueError('extract(key=): give rank= too, and passes >= 1')
  keep = {'refuse': 'refuse', 'keep': 'mean'}[otherwise]
  try:
    views = tree.views(delta, matrices, otherwise=keep)
  except ValueError as error:
    raise ValueError(f'extract: {error}') from None
  is_leaf = lambda x: x is None or isinstance(x, tree.Matrix)
  view_of = tree.named(views, is_leaf=is_leaf)
  factors: dict[str, deltas.Factors] = {}
  rest: dict[str, Any] = {}
  errors: dict[str, float] = {}
  named = tree.named(delta)
  words = {} if key is None else tree.name_words(key, list(named), 1)
  sizes = {k: int(x.size) * x.dtype.itemsize for k, x in named.items()}
  done, total = 0, sum(sizes.values())
  for name, leaf in named.items():
    view = view_of[name]
    errors[name] = 0.0
    if view is None or not view.is_matrix:
      if np.any(tree.read(leaf)):
        rest[name] = leaf
    else:
      sketch = {}
      if words:
        sketch = {'words': words[name][0], 'passes': tree.Static(passes)}
      found = _of_leaf(name, leaf, view, rank, energy, dtype, sketch)
      if found is not None:
        factors[name], errors[name] = found
    done += sizes[name]
    if progress is not None:
      progress(name, done, total)
  return Extraction(factors, rest, errors)


def _check(rank: Any, energy: Any, otherwise: str) -> None:
  """Checks the arguments of ``extract``."""
  if rank is None and energy is None:
    raise ValueError('extract: give rank=, energy= or both')
  _checks.whole('extract', rank=rank)
  _checks.share('extract', energy=energy)
  if otherwise not in ('refuse', 'keep'):
    hint = tree.nearest(str(otherwise), ['refuse', 'keep'])
    raise ValueError(
      f"extract(otherwise={otherwise!r}): expected 'refuse' or 'keep'{hint}"
    )


def _of_leaf(
  name: str,
  leaf: Any,
  view: tree.Matrix,
  rank: int | None,
  energy: float | None,
  dtype: Any,
  sketch: dict[str, Any],
) -> tuple[deltas.Factors, float] | None:
  """Returns the factors of a leaf and their error; None if it is zero."""
  tree.check_real('extract', {name: leaf}, 'only real ones are decomposed')
  if not leaf.size:
    return None
  _, m, n = view.sizes(leaf.shape)
  most = min(m, n) if rank is None else min(m, n, rank)
  wide = tree.wide_dtype(leaf)
  node = tree.Computed(
    _factorise,
    (_read(leaf),),
    {
      'view': tree.Static(view),
      'most': tree.Static(most),
      'energy': float('inf') if energy is None else float(energy),
      'dtype': tree.Static(np.dtype(wide if dtype is None else dtype)),
      **sketch,
    },
  )
  a, b, kept, error = tree.read(node)
  if not np.isfinite(error):
    raise ValueError(
      f"extract: leaf '{name}' has values that are not finite, or too large "
      'for dtype=: leave it out, or give a wider dtype'
    )
  if not kept:
    return None
  a, b = a[..., : int(kept), :], b[..., : int(kept)]
  shape = tuple(leaf.shape)
  return deltas.Factors(a, b, 1.0, shape, view), float(error)


def _read(leaf: Any) -> Any:
  """Reads a leaf chunk by chunk, so that its inputs are not held whole."""
  if not isinstance(leaf, tree.Computed):
    return leaf
  nbytes = int(leaf.size) * leaf.dtype.itemsize
  # XLA takes an array that starts at a multiple of 64 without a copy.
  room = np.empty(nbytes + _ALIGN, np.uint8)
  start = -room.ctypes.data % _ALIGN
  found = room[start : start + nbytes].view(leaf.dtype)
  at = 0
  for _, part in tree.stream({'': leaf}):
    found[at : at + part.size] = part
    at += part.size
  return found.reshape(leaf.shape)


def _factorise(
  x: types.Array,
  *,
  view: tree.Matrix,
  most: int,
  energy: types.Scalar,
  dtype: np.dtype,
  words: types.Array | None = None,
  passes: int = 0,
) -> tuple[types.Array, ...]:
  """Returns A, B, their rank (columns beyond it are zero), and the error."""
  x = view.split(x.astype(tree.wide_dtype(x)))  # [G, in, out]
  size = jnp.max(jnp.abs(x), keepdims=True)
  x = tree.safe_divide(x, size)
  if words is None:
    u, core, v = tree.leading(x, most)
  else:
    u, core, v = sketch.leading(x, most, words, passes)
  u, s, vt = tree.triplets(tree.Leading(u, core, v), x.shape)
  total = jnp.sum(jnp.square(x), (-2, -1))[:, None]
  wanted = budget.needed(jnp.square(s), total, energy)
  root = jnp.sqrt(jnp.where(wanted, s, 0) * size[0])[..., None, :]
  a = tree.narrow(jnp.matrix_transpose(u * root), dtype)
  b = tree.narrow(jnp.matrix_transpose(vt) * root, dtype)
  back = [jnp.matrix_transpose(y).astype(x.dtype) for y in (a, b)]
  # A factor is scaled, not the product, which has the size of the leaf.
  back[1] = tree.safe_divide(back[1], size)
  lost = jnp.sum(jnp.square(x - tree.matmul(*back)))
  error = jnp.sqrt(tree.safe_divide(lost, jnp.sum(total)))
  kept = jnp.max(jnp.sum(wanted, -1))
  if view.batch or view.groups > 1:
    return a, b, kept, error
  return a[0], b[0], kept, error
