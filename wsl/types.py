"""The types that the rooms exchange, with shapes.

================  ===========================================================
``Params``        any pytree of arrays; leaves ``[...]``
``Delta``         one task vector, ``theta_t - theta_0``; same tree, ``[...]``
``Deltas``        T task vectors stacked; same tree, leaves ``[T, ...]``
``Scalar``        a number, or a traced array of rank 0
``Numbers``       a ``Scalar``, or one for each leaf: a prefix tree, or a dict
                  from regular expressions to them (``tree.scalars``)
``Gram``          second moments of one linear map's inputs
``Moments``       mean and variance of one linear map's outputs
``CrossMoments``  means, covariances and cross-covariance of two feature sets
``Leaves``        a choice of leaves: a regular expression searched in the name,
                  or a predicate on (name, shape)
================  ===========================================================

A leaf is a ``jax.Array``, a numpy array, or a leaf on demand
(``wsl.tree.OnDemand``). In a ``Delta`` and in ``Deltas`` an integer leaf of
the model is ``None``: it is not merged, and ``deltas.apply`` copies the base's.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, TYPE_CHECKING, TypeAlias

import jax

Array: TypeAlias = jax.Array
ArrayLike: TypeAlias = jax.typing.ArrayLike
PRNGKey: TypeAlias = jax.Array
Scalar: TypeAlias = float | jax.Array
Numbers: TypeAlias = Scalar | Mapping[str, Any] | Sequence[Any]
Tree: TypeAlias = Any
Params: TypeAlias = Any
if TYPE_CHECKING:
  # Type checkers tell a stack from a merge: a ``Delta`` given as ``Deltas`` is
  # an error. Trees written by hand, such as dicts, are accepted as either.

  class _Merged:
    """A tree that a merge returned, leaves ``[...]``."""

    def __getitem__(self, name: Any) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...

  class _Stacked:
    """A tree of stacked task vectors, leaves ``[T, ...]``."""

    def __getitem__(self, name: Any) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...

  Delta: TypeAlias = _Merged | Mapping[str, Any]
  Deltas: TypeAlias = _Stacked | Mapping[str, Any]
else:
  Delta = Any
  Deltas = Any
Predicate: TypeAlias = Callable[[str, tuple[int, ...]], bool]
Leaves: TypeAlias = str | Predicate


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gram:
  r"""Second moments of the inputs of one linear map.

  .. math:: G = \frac{1}{n} \sum_{i=1}^{n} x_i x_i^\top

  Attributes:
    matrix: ``[..., groups, d, d]``; ``groups`` is 1 except for grouped
      convolutions and for stacks of layers or experts; ``d`` is the size of the
      flattened input axes.
    count: ``[...]``, the number n of rows (tokens, patches); None if it is not
      known: merges do not need it.
    axes: the input axes of the weight, in the order in which ``d`` is
      flattened: ``(0,)`` for a Flax dense kernel ``[in, out]``, ``(0, 1, 2)``
      for a convolution ``[h, w, in, out]``, ``(1,)`` for a weight stored as
      ``[out, in]``.
    mean: ``[..., groups, d]``, the mean of the inputs; ``None`` if it was not
      measured (only ``stats.joint_gram`` does).
    bias: the name of the leaf that is added to the map's outputs, if the mean
      was measured; ``''`` if there is none.
  """

  matrix: Array
  count: Any = None
  axes: tuple[int, ...] = dataclasses.field(
    metadata={'static': True}, default=(0,)
  )
  mean: Array | None = None
  bias: str = dataclasses.field(metadata={'static': True}, default='')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
  r"""Mean and variance of the outputs of one linear map, unit by unit.

  .. math:: y = x W + b, \quad m = \frac{1}{n} \sum_{i=1}^{n} y_i, \quad
    v = \frac{1}{n} \sum_{i=1}^{n} (y_i - m)^2

  Attributes:
    mean: ``[...]``, the shape of the weight without its input axes.
    variance: ``[...]``, the same shape.
    count: the number n of rows (tokens, patches) of one unit.
    axes: the input axes of the weight.
    bias: the name of the leaf that is added to the map's outputs and included
      in the mean; ``''`` if there is none.
  """

  mean: Array
  variance: Array
  count: Array
  axes: tuple[int, ...] = dataclasses.field(
    metadata={'static': True}, default=(0,)
  )
  bias: str = dataclasses.field(metadata={'static': True}, default='')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CrossMoments:
  r"""Moments of two sets of features, x and y, of the same n rows.

  With :math:`\tilde x = x - \bar x` and :math:`\tilde y = y - \bar y`:

  .. math:: C_{xy} = \frac{1}{n} \sum_{i=1}^{n} \tilde x_i \tilde y_i^\top

  Attributes:
    count: the number n of rows (examples, tokens, places of an image).
    mean_x: ``[d]``.
    mean_y: ``[m]``.
    xx: ``[d, d]``, the covariance of x.
    xy: ``[d, m]``.
    yy: ``[m, m]``, or ``None`` if it was not requested.
    norms: ``[3]``, the means of :math:`|\tilde x|^4`,
      :math:`|\tilde x|^2 |\tilde y|^2` and :math:`|\tilde y|^4`, which give the
      bias of CKA; ``None`` if ``yy`` is.
    grid: the grid to which x was resized to match the rows of y; ``None`` if it
      was not resized.
  """

  count: Array
  mean_x: Array
  mean_y: Array
  xx: Array
  xy: Array
  yy: Array | None = None
  norms: Array | None = None
  grid: tuple[int, ...] | None = dataclasses.field(
    metadata={'static': True}, default=None
  )
