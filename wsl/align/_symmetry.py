"""The symmetry group of a model: groups of axes that are permuted together.

Every axis of every leaf is a sum of segments (fused projections, gates,
concatenated features), and every segment a product of factors, major to minor
(heads * units of a head). Segments may be interleaved, ``heads * (a + b)``. A
factor that is not pinned is a group: all axes in which it occurs are permuted
alike. Its permutation may depend on the index of outer factors: the order of
units may differ between heads.
"""

import dataclasses
import functools
import math
from typing import NamedTuple, TypeAlias

import jax

from wsl.align import _blocks

Segment: TypeAlias = tuple[str, ...]  # names of factors, major to minor
Axis: TypeAlias = tuple[Segment, ...]


class Factor(NamedTuple):
  """One index of an axis.

  Attributes:
    name: its first occurrence, unique: ``'leaf:axis'``, or ``'leaf:axis.i'``
      for the i-th factor of an axis with several; ``'leaf:axis.s/2'`` for the
      real and imaginary parts of the s-th segment.
    size: the number of its indices.
    pinned: why only the identity is allowed; ``''`` if it is a group.
    outer: names of the factors that the permutation depends on, outermost
      first, including their own outer factors. Each occurs exactly once in
      every block in which this factor occurs.
  """

  name: str
  size: int
  pinned: str = ''
  outer: tuple[str, ...] = ()


class Power(NamedTuple):
  """Where a gauge acts on a leaf.

  Attributes:
    leaf: its name.
    axis: the axis.
    segment: the position of the segment in the axis.
    factor: the position of the factor in the segment.
    power: of a scale, the exponent; of a linear map A, 1 for A and -1 for the
      inverse transpose; of a phase z, 1 for z and -1 for 1 / conj(z); 1 for
      signs and rotations.
  """

  leaf: str
  axis: int
  segment: int
  factor: int
  power: float


class Action(NamedTuple):
  """A continuous gauge, or signs, of one factor.

  Attributes:
    name: its key in a gauge: kind and factor, and a number if there are more.
    kind: ``'sign'``, ``'scale'``, ``'rotation'``, ``'phase'`` or ``'linear'``.
    factor: the name of the factor. Each index of it has its own sign or scale;
      rotations and linear maps mix its indices. As a permutation, the gauge may
      depend on the factor's outer ones. Of a phase it is a pinned factor of
      size 2, the real and the imaginary part of complex numbers.
    powers: where and how it acts.
    ones: whether a rotation has to fix the vector of ones.
    over: of a phase, the factors for each index of which there is a number, for
      example heads and frequencies.
    unit: whether the numbers of a phase have the modulus 1.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> mlp = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
    >>> params = {'a': jnp.ones((2, 5)), 'b': jnp.ones((5, 3))}
    >>> (action,) = align.find_symmetry(mlp, params, jnp.ones((1, 2))).actions
    >>> action.name, [(p.leaf, p.power) for p in action.powers]
    ('scale a:1', [('a', 1.0), ('b', -1.0)])
  """

  name: str
  kind: str
  factor: str
  powers: tuple[Power, ...]
  ones: bool = False
  over: tuple[str, ...] = ()
  unit: bool = False


class Interleaved(NamedTuple):
  """A run of segments that alternate: ``h * (a + b)``, not ``h * a + h * b``.

  The entries of each head are then adjacent, those of a before those of b: the
  segments (h, a) and (h, b) of axis 0 are ``Interleaved('w', 0, 0, 2, 1)``.

  Attributes:
    leaf: its name.
    axis: the axis.
    first: the position of the first segment in the axis.
    number: of segments.
    shared: the number of their first factors, the same in all of them, that are
      outside of the sum. Runs in a run share more.
  """

  leaf: str
  axis: int
  first: int
  number: int
  shared: int


KINDS = ('sign', 'scale', 'rotation', 'phase', 'linear')  # of actions
# All kinds of maps: the values that ``gauges`` takes.
GAUGES = ('permutation', *KINDS)
Plan: TypeAlias = tuple[tuple[tuple[Factor, ...], ...], ...]


def width(segment: tuple[Factor, ...]) -> int:
  """Returns the number of entries of an axis in a segment."""
  return math.prod(factor.size for factor in segment)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Symmetry:
  """A permutation group of a model's parameters.

  Attributes:
    factors: all factors, in the order in which leaves name them.
    axes: for each leaf, in tree order, its name and the axes.
    actions: signs, scales, rotations, phases and linear maps.
    limits: why no larger gauge acts: pairs of a factor, and the operation that
      prevents a linear map, rotation or phase of it; or of ``'scale FACTOR'``
      or ``'sign FACTOR'``, and the operation that prevents these.
    interleaved: the runs of segments that alternate.
  """

  factors: tuple[Factor, ...]
  axes: tuple[tuple[str, tuple[Axis, ...]], ...]
  actions: tuple[Action, ...] = ()
  limits: tuple[tuple[str, str], ...] = ()
  interleaved: tuple[Interleaved, ...] = ()

  @functools.cached_property
  def factor(self) -> dict[str, Factor]:
    """All factors by name."""
    return {factor.name: factor for factor in self.factors}

  @functools.cached_property
  def leaf(self) -> dict[str, tuple[Axis, ...]]:
    """The axes of every leaf by its name."""
    return dict(self.axes)

  @functools.cached_property
  def groups(self) -> tuple[Factor, ...]:
    """The factors that are not pinned; outer factors precede inner ones."""
    free = [factor for factor in self.factors if not factor.pinned]
    return tuple(sorted(free, key=lambda factor: len(factor.outer)))

  def table_shape(self, name: str) -> tuple[int, ...]:
    """Returns the shape of a group's permutation, ``[*outer sizes, size]``."""
    factor = self.factor[name]
    outer = (self.factor[other].size for other in factor.outer)
    return (*outer, factor.size)

  @functools.cached_property
  def action(self) -> dict[str, Action]:
    """All actions by name."""
    return {action.name: action for action in self.actions}

  def action_shape(self, name: str) -> tuple[int, ...]:
    """Returns the shape of an action's table.

    It is ``[*outer sizes, size]`` of signs and scales, ``[*outer sizes, size,
    size]`` of rotations and linear maps, and of phases ``[*sizes of over, 2]``,
    real and imaginary parts.
    """
    action = self.action[name]
    if action.kind == 'phase':
      return (*(self.factor[other].size for other in action.over), 2)
    shape = self.table_shape(action.factor)
    matrix = action.kind in ('rotation', 'linear')
    return (*shape, shape[-1]) if matrix else shape

  def plan(self, name: str) -> Plan:
    """Returns the axes of a leaf as factors, not names."""
    return tuple(
      tuple(tuple(self.factor[f] for f in segment) for segment in axis)
      for axis in self.leaf[name]
    )

  @functools.cached_property
  def _runs(self) -> dict[tuple[str, int], list[_blocks.Span]]:
    """The interleaved runs of each axis."""
    found: dict[tuple[str, int], list[_blocks.Span]] = {}
    for leaf, axis, first, number, shared in self.interleaved:
      found.setdefault((leaf, axis), []).append((first, number, shared))
    return found

  def layout(self, name: str) -> _blocks.Layout:
    """Returns the axes of a leaf as sums of parts, see ``Interleaved``."""
    return tuple(
      _blocks.nest(segments, self._runs.get((name, i), ()))
      for i, segments in enumerate(self.plan(name))
    )

  @functools.cached_property
  def log10_order(self) -> float:
    r"""The order of the group, :math:`\log_{10} \prod_g (n_g!)^{o_g}`."""
    total = 0.0
    for group in self.groups:
      *outer, size = self.table_shape(group.name)
      total += math.prod(outer) * math.lgamma(size + 1)
    return total / math.log(10)
