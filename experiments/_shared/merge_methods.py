"""Merging methods by their expressions in a config: ``'ties'``, ``'dare+sum'``.

An expression names public functions of ``wsl.merge`` or ``wsl.scale``, applied
from left to right. An argument ``method`` is the name of another merge, such as
``knots: {'method': 'ties'}``, whose arguments are its own.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import inspect
import itertools
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from experiments._run import public_calls
from experiments._shared import merge_calls
from wsl import merge, scale, types

# Statistics of the experts on unlabelled inputs, for methods that have such an
# argument.
STATISTICS = ('fishers', 'grams')
# Functions of the experts on images, with or without labels, and the leaves of
# each block of the model.
FUNCTIONS = ('apply_fn', 'loss_fn', 'blocks')
_REQUIRED = inspect.Parameter.empty
SUPPLIED = (*STATISTICS, *FUNCTIONS, 'key', 'base', 'batches')


class Method(NamedTuple):
  """One line of the table.

  Attributes:
    name: the expression, such as ``'dare+sum'``.
    calls: the functions, first to last.
    candidates: arguments by function name; validation data select one.
    coefs: candidates for the coefficient λ.
    statistics: the ``STATISTICS`` that are arguments of the functions.
    data: what the functions read: ``'none'``, ``'unlabelled'`` or
      ``'labelled'`` images.
  """

  name: str
  calls: tuple[Callable[..., Any], ...]
  candidates: tuple[dict[str, dict[str, Any]], ...]
  coefs: tuple[float, ...]
  statistics: tuple[str, ...]
  data: str


def parse(
  names: Sequence[str],
  arguments: Mapping[str, Mapping[str, Any]],
  coefs: Mapping[str, Sequence[float]],
) -> list[Method]:
  """Reads the methods of a config and checks every name in it.

  Args:
    names: expressions.
    arguments: by function name; a tuple holds candidates.
    coefs: candidates by expression; ``'default'`` for all others.

  Returns:
    The methods.

  Raises:
    ValueError: naming an unknown name and the nearest valid one, or a missing
      argument.

  Example:
    >>> found = parse(['dare+sum'], {'dare': {'rate': (0.5, 0.9)}},
    ...               {'default': (0.3,)})
    >>> [c['dare'] for c in found[0].candidates]
    [{'rate': 0.5}, {'rate': 0.9}]
  """
  if not names:
    raise ValueError("methods: none given, name at least one such as 'mean'")
  rooms = (merge, scale)
  for function in arguments:
    public_calls.find(function, rooms, where='arguments')
  for name in coefs:
    if name not in (*names, 'default') and '+' not in name:
      public_calls.find(name, rooms, where='coefs')
  return [_parse(name, rooms, arguments, coefs) for name in names]


def _parse(
  name: str, rooms: Any, arguments: Mapping[str, Any], coefs: Mapping[str, Any]
) -> Method:
  """Reads one expression; candidates are all combinations of the arguments."""
  where = f"methods: '{name}'"
  calls = tuple(
    public_calls.find(part, rooms, where=where) for part in name.split('+')
  )
  inner = (arguments.get(call.__name__, {}).get('method') for call in calls)
  methods = [
    public_calls.find(each, rooms, where=where) for each in inner if each
  ]
  values = {}
  for call in (*calls, *methods):
    given = dict(arguments.get(call.__name__, {}))
    public_calls.check(
      call, given, supplied=SUPPLIED, where=f'arguments.{call.__name__}'
    )
    for key, value in given.items():
      several = isinstance(value, (tuple, list))
      values[call.__name__, key] = list(value) if several else [value]
  chosen = coefs[name] if name in coefs else coefs['default']
  asked = {key for call in calls for key in public_calls.options(call)}
  used = tuple(s for s in STATISTICS if s in asked)
  unlabelled = 'unlabelled' if used or 'apply_fn' in asked else 'none'
  return Method(
    name,
    calls,
    tuple(_nested(values, row) for row in itertools.product(*values.values())),
    tuple(float(c) for c in chosen),
    used,
    'labelled' if 'loss_fn' in asked else unlabelled,
  )


def _nested(
  values: Mapping[tuple[str, str], Any], row: Sequence[Any]
) -> dict[str, dict[str, Any]]:
  """Returns the arguments of one candidate, by function name."""
  nested: dict[str, dict[str, Any]] = {}
  for (function, key), value in zip(values, row):
    nested.setdefault(function, {})[key] = value
  return nested


def statistics(methods: Sequence[Method]) -> list[str]:
  """Returns the statistics that at least one method uses."""
  needed = {name for method in methods for name in method.statistics}
  return [name for name in STATISTICS if name in needed]


def apply(
  method: Method,
  arguments: Mapping[str, Mapping[str, Any]],
  base: types.Params,
  stack: types.Deltas,
  supplied: Mapping[str, Any],
  functions: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
  """Merges one stack of task vectors.

  Args:
    method: the method.
    arguments: one of its candidates.
    base: leaves ``[...]``.
    stack: task vectors, leaves ``[T, ...]``.
    supplied: arrays for ``SUPPLIED``, and ``'examples'`` for the batches of
      functions, see ``suites.Examples``.
    functions: values for ``FUNCTIONS``.

  Returns:
    A delta, leaves ``[...]``, or a family of T deltas, see ``is_family``.
  """
  result: Any = stack
  for call in method.calls:
    given = dict(arguments.get(call.__name__, {}))
    asked = public_calls.options(call)
    values = {**supplied, **functions, 'base': base}
    if 'examples' in supplied:
      examples = supplied['examples']
      labelled = 'loss_fn' in asked
      values['batches'] = examples if labelled else [[x] for x in examples.x]
    given |= {
      name: values[name]
      for name, parameter in asked.items()
      # A key that is optional is for some values of other arguments only.
      if name in values and (name != 'key' or parameter.default is _REQUIRED)
    }
    if isinstance(given.get('method'), str):  # a merge within a merge
      inner = getattr(merge, given['method'])
      its_own = arguments.get(inner.__name__, {})
      given['method'] = functools.partial(inner, **its_own)
    result = merge_calls.apply(call, base, result, given)
  return result


def check(
  method: Method,
  base: types.Params,
  tasks: int,
  supplied: Mapping[str, Any],
  functions: Mapping[str, Any] = MappingProxyType({}),
) -> None:
  """Traces a method on shapes, so that errors precede the training.

  Args:
    method: the method; every candidate is traced.
    base: arrays or ``jax.ShapeDtypeStruct``.
    tasks: T.
    supplied: abstract values, as in ``apply``.
    functions: as in ``apply``.

  Raises:
    ValueError: the error of the method, with its place in the config.
  """
  where = f"methods: '{method.name}'"
  if tasks != 2 and 2 in map(merge_calls.operands, method.calls):
    raise ValueError(f'{where} takes 2 models, there are {tasks}: leave it out')
  stack = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((tasks, *x.shape), x.dtype), base
  )
  for arguments in method.candidates:
    try:
      merged = jax.eval_shape(
        lambda base, stack, supplied, arguments=arguments: apply(
          method, arguments, base, stack, supplied, functions
        ),
        base,
        stack,
        supplied,
      )
    except (ValueError, TypeError) as error:
      raise ValueError(f'{where}: {error}') from None
    if is_family(merged):
      continue
    found = [x.shape for x in jax.tree.leaves(merged)]
    if found != [x.shape for x in jax.tree.leaves(base)]:
      raise ValueError(
        f"{where} edits task vectors and does not merge them: add '+sum'"
      )


def is_family(merged: Any) -> bool:
  """Returns whether a result is a family of one model for each task."""
  if isinstance(merged, (merge.TallMasks, merge.Twins)):
    return True
  reversible = lambda x: isinstance(x, merge.Reversible)
  return any(map(reversible, jax.tree.leaves(merged, is_leaf=reversible)))
