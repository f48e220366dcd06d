"""Rules for the layouts of Flax, of PyTorch and of scanned layers."""

from collections.abc import Callable
import re
from typing import TypeAlias

from wsl.tree import _names
from wsl.tree._matrix import rules, view

Matrix = view.Matrix
Rule: TypeAlias = Callable[[str, tuple[int, ...]], Matrix | None]

_INPUTS = re.compile(r'(^|_)(q|k|v|query|key|value)(_?proj)?$', re.IGNORECASE)
_OUTPUTS = re.compile(r'(^|_)(o|out|output)(_?proj)?$', re.IGNORECASE)
_CONV = re.compile('conv', re.IGNORECASE)
_TOKENS = re.compile(r'(pos|cls|class|token|register|position|query)', re.I)
_TABLE = re.compile(r'emb|wte|wpe', re.IGNORECASE)


def flax(name: str, shape: tuple[int, ...]) -> Matrix | None:
  """Views of the leaves of Flax layers, by name and number of axes.

  A leaf of two axes is ``[in, out]``, an embedding ``[entries, d]``. Kernels of
  ``query``, ``key`` and ``value`` are ``[d, heads, k]``, that of ``out`` is
  ``[heads, k, d]``. Other kernels of four or five axes, and of three below a
  name with ``conv``, are convolutions ``[..., in, out]``. Biases, scales and
  learned tokens ``[1, n, d]`` are vectors. In a grouped convolution the groups
  are not known from names: take ``stats.matrix_views``, or say
  ``Matrix(..., groups=...)``.

  Args:
    name: the name of a leaf, its parts joined by ``/``.
    shape: its shape, without the axis of models.

  Returns:
    The view, with the inputs as rows, or None for vectors.

  Raises:
    ValueError: if a leaf of more than two axes is none of these.

  Example:
    >>> flax('attention/out/kernel', (4, 16, 64))
    Matrix(rows=(0, 1), columns=(2,), batch=(), groups=1)
  """
  rank, layer = len(shape), _layer(name)
  if _is_vectors(name, shape):
    return None
  if rank == 2:
    return rules.DENSE
  if rank == 3 and _INPUTS.search(layer):
    return Matrix(rows=(0,), columns=(1, 2))
  if rank == 3 and _OUTPUTS.search(layer):
    return Matrix(rows=(0, 1), columns=(2,))
  attention = _INPUTS.search(layer) or _OUTPUTS.search(layer)
  if _CONV.search(layer) or (rank > 3 and not attention):
    return Matrix(rows=tuple(range(rank - 1)), columns=(rank - 1,))
  raise ValueError(_unknown('flax', name, shape))


def torch(name: str, shape: tuple[int, ...]) -> Matrix | None:
  """Views of the leaves of PyTorch layers, by name and number of axes.

  A weight of two axes is ``[out, in]``, an embedding ``[entries, d]``. Weights
  of four or five axes, and of three below a name with ``conv``, are
  convolutions ``[out, in, ...]``. ``in_proj_weight`` holds the queries, keys
  and values in three blocks. Biases, scales and learned tokens ``[1, n, d]``
  are vectors.

  Args:
    name: the name of a leaf, as in a ``state_dict``.
    shape: its shape, without the axis of models.

  Returns:
    The view, with the outputs as columns, or None for vectors.

  Raises:
    ValueError: if a leaf of three axes or more has none of these names.

  Example:
    >>> torch('conv1.weight', (64, 3, 7, 7))
    Matrix(rows=(1, 2, 3), columns=(0,), batch=(), groups=1)
  """
  rank = len(shape)
  if _is_vectors(name, shape):
    return None
  if rank == 2 and name.endswith('in_proj_weight'):
    return Matrix(rows=(1,), columns=(0,), groups=3)
  if rank == 2:
    return rules.DENSE if _TABLE.search(_layer(name)) else _torch(rank)
  if rank > 3 or _CONV.search(_layer(name)):
    return _torch(rank)
  raise ValueError(_unknown('torch', name, shape))


def scanned(leaves: str, rule: Rule = flax) -> Rule:
  """Views of models whose layers are stacked along a leading axis.

  Args:
    leaves: a regular expression, searched in names: the leaves that are stacks
      of layers ``[L, ...]``, such as ``'^layers/'``.
    rule: the views of one layer, and of the other leaves: ``flax``, ``torch``
      or a function of (name, shape).

  Returns:
    A rule: in stacked leaves the first axis is a batch axis and the others are
    viewed by ``rule``. A stack of vectors, such as a norm scale ``[L, D]``, is
    ``Matrix(batch=(0,), rows=(1,))``, without columns.

  Raises:
    ValueError: if the expression is malformed.

  Example:
    >>> rule = scanned('^layers/')
    >>> rule('layers/mlp/kernel', (12, 64, 256))
    Matrix(rows=(1,), columns=(2,), batch=(0,), groups=1)
    >>> rule('layers/norm/scale', (12, 64)).is_matrix
    False
  """
  pattern = _names.compiled(leaves)

  def stacked(name: str, shape: tuple[int, ...]) -> Matrix | None:
    if not (shape and pattern.search(name)):
      return rule(name, shape)
    one = rule(name, shape[1:])
    if one is None:
      return Matrix(batch=(0,), rows=tuple(range(1, len(shape))))
    one = one.fit(shape[1:])
    shift = lambda axes: tuple(a + 1 for a in axes)
    return Matrix(
      shift(one.rows), shift(one.columns), (0, *shift(one.batch)), one.groups
    )

  return stacked


def _torch(rank: int) -> Matrix:
  """Returns the view of ``[out, in, ...]``."""
  return Matrix(rows=tuple(range(1, rank)), columns=(0,))


def _layer(name: str) -> str:
  """Returns the last part of a name that is not the parameter itself."""
  parts = re.split('[/.]', name)
  return parts[-2] if len(parts) > 1 else parts[-1]


def _is_vectors(name: str, shape: tuple[int, ...]) -> bool:
  """Returns True for vectors, biases, scales and learned tokens."""
  if len(shape) < 2 or rules.is_vectors(name):
    return True
  last = re.split('[/.]', name)[-1]
  # A learned token or table of positions, broadcast along the batch of inputs.
  return len(shape) > 2 and shape[0] == 1 and bool(_TOKENS.search(last))


def _unknown(preset: str, name: str, shape: tuple[int, ...]) -> str:
  """Returns the message for a leaf that a preset does not know."""
  return (
    f"{preset}: leaf '{name}' of shape {shape} is neither attention nor a "
    f'convolution by its name: give it a rule, matrices={{regex: '
    'tree.Matrix(batch=..., rows=..., columns=...)}, or tree.scanned(...)'
  )
