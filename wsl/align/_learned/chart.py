"""The coordinates of a gauge group that learned matching changes."""

from collections.abc import Sequence
import dataclasses

from wsl.align import _symmetry

ENDS = ('fixed', 'moving')


@dataclasses.dataclass(frozen=True)
class Chart:
  """The coordinates that are learned.

  Attributes:
    symmetry: the symmetry; groups that are not learned are pinned.
    smooth: the names of continuous actions to learn of the fixed and of the
      moving model.
    signs: the names of signs to learn, of the moving model.
  """

  symmetry: _symmetry.Symmetry
  smooth: tuple[tuple[str, ...], tuple[str, ...]]
  signs: tuple[str, ...]


def of(
  symmetry: _symmetry.Symmetry, gauges: Sequence[str], *, both: bool
) -> Chart:
  """Returns the coordinates of a symmetry that are learned.

  A rotation or linear map of a factor includes its permutations, which are not
  learned then, unless another group depends on them.

  Args:
    symmetry: the symmetry.
    gauges: the kinds to learn.
    both: whether continuous actions of both models are learned.
  """
  chosen = [a for a in symmetry.actions if a.kind in gauges]
  signs = tuple(a.name for a in chosen if a.kind == 'sign')
  smooth = tuple(a.name for a in chosen if a.kind != 'sign')
  included = {a.factor for a in chosen if a.kind in ('rotation', 'linear')}
  included -= {name for group in symmetry.groups for name in group.outer}

  def one(factor: _symmetry.Factor) -> _symmetry.Factor:
    learned = 'permutation' in gauges and factor.name not in included
    if factor.pinned or learned:
      return factor
    return factor._replace(pinned='not learned')

  factors = tuple(map(one, symmetry.factors))
  pinned = dataclasses.replace(symmetry, factors=factors)
  return Chart(pinned, (smooth if both else (), smooth), signs)
