"""Checks of arguments that several functions of this room have in common."""

from collections.abc import Mapping
import re
from typing import TypeVar

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
  for name, model in models.items():
    _symmetry.check_leaves(symmetry, tree.named(model), f'{caller}: {name}')
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
