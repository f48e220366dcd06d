r"""Contractions of complex vectors, which phases leave alone.

Two entries p1, p2 of an array are a complex number :math:`p_1 + i p_2` on which
a phase acts if, over all sources t,

.. math:: p_1 = \sum_t a_t\, re_t - b_t\, im_t, \qquad
  p_2 = \sum_t b_t\, re_t + a_t\, im_t

with equal names of coefficients. As p1 + i p2 is the sum of (a_t + i b_t) (re_t
+ i im_t), it is multiplied by z if all the parts are, whatever the values of
the coefficients, such as cosines and sines. A contraction :math:`\sum q_1 k_1 +
q_2 k_2 = \mathrm{Re}\, q \bar k` does not change if q is multiplied by z and k
by :math:`1 / \bar z`.
"""

from collections.abc import Sequence
import itertools
from typing import NamedTuple

import numpy as np

from wsl.align._gauges.phases import coefficients, forms


class _Side(NamedTuple):
  """An operand of a contraction.

  Attributes:
    codes: the terms of each entry as numbers, sorted, ``[terms, batch, free,
      contracted]``.
    turned: the terms that p2 has if the entry is p1.
    units: see ``Term``.
  """

  codes: np.ndarray
  turned: np.ndarray
  units: np.ndarray


def contract(
  c: forms.Phases,
  left: forms.Form,
  right: forms.Form,
  contracted: Sequence[tuple[int, int]],
  batch: Sequence[tuple[int, int]],
  reason: str,
) -> None:
  """Relates the phases of two arrays, whose products are added up.

  Args:
    c: receives the constraints.
    left: one array.
    right: the other one.
    contracted: the dimensions that are contracted, in pairs.
    batch: the dimensions that are kept in both.
    reason: why phases are 1 that the contraction does not cancel.
  """
  pairs = [*contracted, *batch]
  more = {i for i, j in pairs if j in right.dims}
  left = forms.expanded(c, left, left.dims | more)
  more = {j for i, j in pairs if i in left.dims}
  right = forms.expanded(c, right, right.dims | more)
  _link_terms(c, left)
  _link_terms(c, right)
  x = _side(c, left, [i for i, _ in batch], [i for i, _ in contracted])
  y = _side(c, right, [j for _, j in batch], [j for _, j in contracted])
  lone, first, second = _partners(x)
  for side in (x, y):
    c.failed.append((side.units[..., lone] >> 1, reason))
  # Both orders of a pair are tried: the second entry may be the real part.
  for _ in range(2):
    good = _turned(x, first, second) & _turned(y, first, second)
    _link(c, x.units[..., first[good]], y.units[..., first[good]])
    first, second = second[~good], first[~good]
  for side in (x, y):
    for k in (first, second):
      c.failed.append((side.units[..., k] >> 1, reason))


def _side(
  c: forms.Phases,
  form: forms.Form,
  batch: Sequence[int],
  contracted: Sequence[int],
) -> _Side:
  """Returns the terms of an operand, sorted at each entry."""
  free = [i for i in range(len(form.shape)) if i not in (*batch, *contracted)]
  order = [*batch, *free, *contracted]

  def flat(x: np.ndarray) -> np.ndarray:
    x = np.transpose(form.table(x), order)
    ends = len(batch), len(batch) + len(free)
    cuts = x.shape[: ends[0]], x.shape[ends[0] : ends[1]], x.shape[ends[1] :]
    return x.reshape([int(np.prod(s)) for s in cuts])

  units, sources, factors = (
    np.stack([flat(t[k]) for t in form.terms]) for k in range(3)
  )
  units = np.where(factors == coefficients.ZERO, forms.ABSENT, units)
  # If p1 has a re - b im, p2 has a im + b re; a fixed term has no like.
  negative = coefficients.scaled(c.store, factors, -1.0)
  swapped = np.where(units < 0, 2 * units + 1, units ^ 1)
  signed = np.where(units & 1, negative, factors)

  def codes(u: np.ndarray, k: np.ndarray) -> np.ndarray:
    code = (u * len(c.sources) + sources) * len(c.store.entries) + k
    return np.sort(np.where(units == forms.ABSENT, -1, code), axis=0)

  return _Side(codes(units, factors), codes(swapped, signed), units)


def _link_terms(c: forms.Phases, form: forms.Form) -> None:
  """Links the phases of all terms of an entry: they act alike."""
  whole = [form.table(t.unit) for t in form.terms]
  for a, b in itertools.pairwise(whole):
    both = (a >= 0) & (b >= 0)
    c.links.append((a[both] >> 1, b[both] >> 1, False))


def _partners(side: _Side) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Pairs the contracted entries of one phase.

  Returns:
    The entries without a partner, and pairs of entries.
  """
  phases = side.units[:, 0, 0] >> 1  # [terms, contracted], of the first group
  phase = phases.max(0)
  order = np.argsort(phase, kind='stable')
  found, start, counts = np.unique(
    phase[order], return_index=True, return_counts=True
  )
  twice = (counts == 2) & (found >= 0)
  first, second = order[start[twice]], order[start[twice] + 1]
  rest = np.ones(len(phase), bool)
  rest[first] = rest[second] = False
  return np.flatnonzero(rest), first, second


def _turned(side: _Side, first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Returns for which pairs p2 has the terms of i p1, in all groups."""
  same = side.codes[..., second] == side.turned[..., first]
  return same.all((0, 1, 2))


def _link(c: forms.Phases, x: np.ndarray, y: np.ndarray) -> None:
  """Links the phases ``[terms, batch, free, pairs]`` of both operands."""
  # At each entry the phases of all terms are linked: the largest stands for
  # them. Batch indices broadcast, where only one operand distinguishes them.
  x, y = x.max(0) >> 1, y.max(0) >> 1
  c.links.append((x[:, :, None], y[:, None, :1], True))
  c.links.append((x[:, :1, None], y[:, None], True))
