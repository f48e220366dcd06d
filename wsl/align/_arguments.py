"""Checks of arguments that several functions of this room have in common."""

from collections.abc import Collection, Mapping, Sequence
import re
from typing import Any, TypeVar

import jax
import numpy as np

from wsl import deltas, tree, types
from wsl.align import _symmetry

_Statistic = TypeVar('_Statistic')
_STATISTICS = re.compile(
  r'(^|/)batch_stats/'
  r'|(^|/)(running|moving)_(mean|var|variance|std)$'
  r'|(^|/)(mean|var)(/value)?$'
)


def default_leaves(name: str, shape: tuple[int, ...]) -> bool:
  """Selects all leaves except the running statistics of normalisation layers.

  Excluded are the leaves of a collection ``batch_stats`` and leaves called
  ``mean`` or ``var``, with or without the prefix ``running_`` or ``moving_``.
  They describe the scale of a layer's inputs, not the function of a unit.
  """
  del shape
  return not _STATISTICS.search(name)


def check_leaves(
  symmetry: _symmetry.Symmetry, leaves: dict[str, Any], argument: str
) -> None:
  """Checks that the names and shapes of leaves are those of a symmetry.

  Args:
    symmetry: a symmetry.
    leaves: leaves by name.
    argument: the name of the argument in the message.

  Raises:
    ValueError: if a leaf is missing, unknown or of another shape.

  Example:
    >>> import numpy as np
    >>> from wsl import align
    >>> unit = align.Factor('w:0', 3)
    >>> symmetry = align.Symmetry((unit,), (('w', ((('w:0',),),)),))
    >>> check_leaves(symmetry, {'w': np.ones(3)}, 'f: params')
  """
  names = dict.fromkeys(symmetry.leaf, True)
  tree.check_names(argument, leaves, 'the symmetry', names)
  for name, leaf in leaves.items():
    plan = symmetry.plan(name)
    shape = tuple(sum(map(_symmetry.width, axis)) for axis in plan)
    if tuple(np.shape(leaf)) != shape:
      raise ValueError(
        f"{argument}: leaf '{name}' has shape {tuple(np.shape(leaf))}, the "
        f'symmetry was found for {shape}: models of different widths cannot be '
        'permuted into each other'
      )


def check_kinds(gauges: Sequence[str], caller: str) -> None:
  """Checks the names of kinds of gauges.

  Raises:
    ValueError: if one is unknown, or if they are a single text.

  Example:
    >>> check_kinds(('permutation', 'scale'), 'f')
  """
  known = _symmetry.GAUGES
  if isinstance(gauges, str) or not isinstance(gauges, Collection):
    kind = f'the text {gauges!r}' if isinstance(gauges, str) else repr(gauges)
    raise ValueError(
      f'{caller}: gauges is {kind}: expected a tuple of some of {[*known]}'
    )
  unknown = [kind for kind in gauges if kind not in known]
  if unknown:
    raise ValueError(
      f'{caller}: gauges has {unknown[0]!r}: expected some of {[*known]}'
      f'{tree.nearest(str(unknown[0]), known)}'
    )


def check_counts(caller: str, **counts: Any) -> None:
  """Checks that counts are known integers, at least 1."""
  tree.check_whole(caller, **counts)
  if any(count < 1 for count in counts.values()):
    shown = ', '.join(f'{name}={count}' for name, count in counts.items())
    raise ValueError(f'{caller}: {shown}: expected at least 1 of each')


def check_known(caller: str, *models: types.Params) -> None:
  """Checks that models are known: what is computed on the host is not traced.

  Raises:
    ValueError: naming the leaf that is traced.

  Example:
    >>> check_known('f', {'w': np.ones(2)})
  """
  for model in models:
    for name, x in tree.named(model).items():
      if isinstance(x, jax.core.Tracer):
        raise ValueError(
          f"{caller}: leaf '{name}' is traced, and {caller} computes on the "
          'host: call it outside of jit'
        )


def check_models(
  models: Mapping[str, types.Params],
  symmetry: _symmetry.Symmetry,
  *,
  caller: str,
) -> list[types.Params]:
  """Checks that models fit a symmetry, agree in dtype and are finite.

  Args:
    models: two or more models by the names of their arguments.
    symmetry: the symmetry of all of them.
    caller: the public function to name in the error message.

  Returns:
    The models in the containers of the first.

  Raises:
    ValueError: naming the model and the leaf.
  """
  check_known(caller, *models.values())
  for name, model in models.items():
    check_leaves(symmetry, tree.named(model), f'{caller}: {name}')
    tree.check_real(caller, model, 'match its real and imaginary parts instead')
  return deltas.check(caller, dict(models))


def by_leaf(
  statistics: types.Tree,
  params: types.Params,
  kind: type[_Statistic],
  *,
  argument: str,
  hint: str,
) -> dict[str, _Statistic]:
  """Returns statistics of linear maps by the names of their leaves.

  Args:
    statistics: a tree with a statistic at the leaves of linear maps.
    params: the model.
    kind: the type of each statistic, such as ``types.Gram``.
    argument: the name of the function and its argument in the message.
    hint: what to pass, for the message.

  Raises:
    ValueError: naming the entry that is no statistic of a leaf.
  """
  is_statistic = lambda x: isinstance(x, kind)
  found = tree.named(statistics, is_leaf=is_statistic)
  names = tree.named(params)
  for name, value in found.items():
    if not is_statistic(value) or name not in names:
      raise ValueError(
        f"{argument} holds {type(value).__name__} at '{name}', expected "
        f'types.{kind.__name__} at leaves of the model: pass {hint}'
      )
  return found
