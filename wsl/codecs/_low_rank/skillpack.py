"""SkillPack: singular vectors of few bits, more for the leading ones."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from wsl import adapters, tree, types
from wsl import deltas as deltas_lib
from wsl.codecs import _packed, _views
from wsl.codecs._low_rank import codes as codes_lib
from wsl.codecs._low_rank import rounding

# Factors are scaled to have entries of at most 2^8.
_EXPONENT = 8


def skillpack(
  delta: types.Delta,
  *,
  rank: int | None = None,
  energy: float | None = None,
  bits: Sequence[tuple[int | None, int]] = ((2, 8), (32, 3), (None, 2)),
  run: int = 128,
  grams: types.Tree | None = None,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> _packed.Packed:
  r"""Compresses matrices to factors of low rank with few bits an entry.

  .. math:: \tau \approx \hat B \hat A, \qquad
    A = S_r^{1/2} V_r^\top, \quad B = U_r S_r^{1/2}

  The rows of A and the columns of B, in order of their singular values, are
  rounded to the numbers of bits in ``bits``, each run of entries with a step of
  its own, of least squared error. With the second moments G of the inputs, A is
  rounded first, and its errors are compensated by the columns after (GPTQ, for
  the inputs); then B is fitted to :math:`\hat A` by least squares,

  .. math:: B' = B A G \hat A^\top (\hat A G \hat A^\top)^{-1}

  and rounded in the same way for the inputs :math:`\hat A x`: directions of
  more bits first, whose errors those after them compensate. A matrix ``[m, n]``
  takes b r (m + n) bits, and 16 / run a code for the steps.

  Args:
    delta: one task vector, every leaf ``[...]``, on demand or not. Leaves that
      are ``deltas.Factors`` are rounded without an SVD.
    rank: the largest rank r >= 1.
    energy: the part of the squared norm that the factors represent at least, as
      in ``adapters.extract``; with ``rank`` the smaller one counts.
    bits: ``(count, bits)`` for the leading singular vectors, the next ones, and
      so on; a count of None takes all others. The default is the authors' for
      attention matrices of 4096 x 4096, at rank 1000.
    run: the entries that share a step of 16 bits.
    grams: ``stats.gram`` of the model on calibration data; None rounds to the
      nearest.
    matrices: which leaves are matrices, as in ``tree.views``; those with a Gram
      matrix are. Vectors and integers are stored as they are: give embeddings
      and heads to ``compeft``, as the paper prunes them.
    otherwise: leaves of more than two axes without a rule: ``'refuse'``, or
      ``'keep'``, which stores them as they are.

  Returns:
    The pack, whose matrices are ``deltas.Factors`` of ``codecs.Codes``;
    ``decode(dense=False)`` returns the factors. Matrices are decoded in float32
    or wider. One whose codes would take more bytes than its entries is stored
    as it is.

  Raises:
    ValueError: if neither rank nor energy is given for a matrix, the bits are
      not 1 .. 16 or do not cover the rank, or a leaf has no view, is complex,
      or is not finite, naming it.

  Example:
    >>> import numpy as np
    >>> from wsl import codecs, tree
    >>> w = np.outer(np.arange(1.0, 5.0), [1.0, -1.0, 1.0]).astype(np.float32)
    >>> packed = codecs.skillpack({'w': w}, rank=1, bits=[(None, 8)])
    >>> found = np.asarray(tree.read(codecs.decode(packed))['w'])
    >>> bool(np.linalg.norm(found - w) < 0.01 * np.linalg.norm(w))
    True

  Reference:
    Du et al., "Knowledge Grafting of Large Language Models", 2025,
    arXiv:2505.18502; Frantar et al., "GPTQ: Accurate Post-Training Quantization
    for Generative Pre-trained Transformers", 2022, arXiv:2210.17323.

  A reconstruction: the official code rounds with scale and zero point and
  activation order, group by group of singular vectors, and fixes the ranks; its
  compensation of one group by the next is here the fit of B and one GPTQ over
  all directions.
  """
  layout = _layout(bits)
  tree.check_whole('skillpack', run=run)
  if run < 1:
    raise ValueError(f'skillpack(run={run!r}): expected an integer >= 1')
  is_factors = deltas_lib.is_factors
  structure = jax.tree.structure(delta, is_leaf=is_factors)
  named = tree.named(delta, is_leaf=is_factors)
  _packed.check_known('skillpack', named)
  tree.check_finite('skillpack', named, remedy='leave this model out')
  views = _views.of('skillpack', named, matrices, otherwise, grams)
  leaves = []
  for name, leaf in named.items():
    view = views[name]
    if view is None:
      leaves.append(leaf)
      continue
    if is_factors(leaf):
      deltas_lib.check_shapes('skillpack', name, leaf)
      tree.check_real('skillpack', {name: leaf}, 'only real ones are rounded')
      leaves.append(_round_factors(name, leaf, view.gram, layout, run))
      continue
    factors = _extract(name, leaf, view.view, rank, energy)
    codes = _round_factors(name, factors, view.gram, layout, run)
    leaves.append(codes if _nbytes(codes) < _nbytes(leaf) else leaf)
  return _packed.Packed(jax.tree.unflatten(structure, leaves), 'skillpack')


def _nbytes(x: Any) -> int:
  """Returns the bytes of the arrays of a leaf."""
  return sum(int(y.size) * y.dtype.itemsize for y in jax.tree.leaves(x))


def _layout(bits: Sequence[tuple[int | None, int]]) -> list[tuple[int, int]]:
  """Returns counts and bits, with a large count for None."""
  whole = lambda x: isinstance(x, (int, np.integer)) and x >= 1
  found: list[tuple[int, int]] = []
  pairs: Any = bits if isinstance(bits, Sequence) else [bits]
  for pair in pairs:
    count, width = pair if isinstance(pair, Sequence) else (pair, 0)
    if not (count is None or whole(count)) or not (
      whole(width) and width <= codes_lib.MOST_BITS
    ):
      raise ValueError(
        f'skillpack: bits has ({count}, {width}): expected (count >= 1 or '
        f'None, 1 .. {codes_lib.MOST_BITS} bits)'
      )
    found.append((np.iinfo(np.int32).max if count is None else count, width))
  return found


def _extract(
  name: str,
  leaf: Any,
  view: tree.Matrix,
  rank: int | None,
  energy: float | None,
) -> deltas_lib.Factors:
  """Returns the factors of one leaf; of rank 1 and zero if it is zero."""
  try:
    found = adapters.extract(
      {name: leaf}, rank=rank, energy=energy, matrices={'': view}
    )
  except ValueError as error:
    raise ValueError(f'skillpack: {error}') from None
  if name in found.factors:
    return found.factors[name]
  b, m, n = view.sizes(leaf.shape)
  lead = (b,) if view.batch or view.groups > 1 else ()
  wide = tree.wide_dtype(leaf)
  zeros: Any = lambda *shape: np.zeros((*lead, *shape), wide)
  shape = tuple(leaf.shape)
  return deltas_lib.Factors(zeros(1, m), zeros(n, 1), 1.0, shape, view)


def _round_factors(
  name: str,
  factors: deltas_lib.Factors,
  gram: Any,
  layout: list[tuple[int, int]],
  run: int,
) -> deltas_lib.Factors:
  """Returns factors whose a and b are codes."""
  if sum(count for count, _ in layout) < factors.rank:
    raise ValueError(
      f"skillpack: bits do not cover the rank {factors.rank} of leaf '{name}': "
      'end with (None, bits)'
    )
  widths = np.repeat(
    [width for _, width in layout],
    [min(count, factors.rank) for count, _ in layout],
  )[: factors.rank]
  dtype = tree.wide_dtype(factors.a).name
  a, b = (np.asarray(tree.read(x), np.float64) for x in (factors.a, factors.b))
  # Powers of two keep the steps of 1 .. 16 bits within normal float16.
  largest = [np.max(np.abs(x), initial=0.0) for x in (a, b)]
  exponents = [int(np.frexp(x)[1]) - _EXPONENT for x in largest]
  a, b = (np.ldexp(x, -e) for x, e in zip((a, b), exponents))
  lead, groups = a.shape[:-2], int(np.prod(a.shape[:-2]))
  a3, b3 = a.reshape(groups, *a.shape[-2:]), b.reshape(groups, *b.shape[-2:])
  grams: Any = [None] * groups
  if gram is not None:
    moments = np.asarray(tree.read(gram), np.float64)
    grams = np.broadcast_to(moments, (groups, *moments.shape[1:]))
  rounded = [_round_one(*x, widths, run) for x in zip(a3, b3, grams)]
  (codes_a, steps_a), (codes_b, steps_b) = (
    [np.stack([one[i][j] for one in rounded]) for j in range(2)]
    for i in range(2)
  )
  scale: Any = np.float32(factors.scale) * np.float32(2.0 ** sum(exponents))
  pack: Any = lambda codes, steps, columns: codes_lib.Codes(
    _segments(
      codes.reshape(*lead, *codes.shape[1:]),
      steps.reshape(*lead, *steps.shape[1:]),
      widths,
      run,
    ),
    dtype,
    columns,
  )
  return dataclasses.replace(
    factors,
    a=pack(codes_a, steps_a, False),
    b=pack(codes_b, steps_b, True),
    scale=scale,
  )


def _round_one(
  a: np.ndarray,
  b: np.ndarray,
  gram: np.ndarray | None,
  widths: np.ndarray,
  run: int,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
  """Returns codes and steps of A and of B for one matrix."""
  codes, steps = rounding.rows(a, widths, run, gram)
  inner = None
  if gram is not None:
    each = np.repeat(steps, run, axis=1)[:, : a.shape[1]]
    near = codes_lib.levels(codes, each, widths[:, None])
    inner = near @ gram @ near.T
    # The least-squares fit of B to the rounded A, on the inputs.
    b = np.linalg.lstsq(inner, near @ gram @ a.T @ b.T, rcond=1e-10)[0].T
  return (codes, steps), rounding.columns(b, widths, run, inner)


def _segments(
  codes: np.ndarray, steps: np.ndarray, widths: np.ndarray, run: int
) -> tuple[codes_lib.Segment, ...]:
  """Packs vectors of equal bits together."""
  steps = steps.astype(np.float16)
  ends = [*np.flatnonzero(np.diff(widths)) + 1, len(widths)]
  segment = lambda i, j: codes_lib.encode(
    codes[..., i:j, :], steps[..., i:j, :], int(widths[i]), run
  )
  return tuple(map(segment, [0, *ends[:-1]], ends))
