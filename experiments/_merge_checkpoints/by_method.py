"""Merges by public functions of ``wsl.merge`` that the config names."""

from collections.abc import Callable, Mapping, Sequence
import inspect
from typing import Any, NamedTuple

from experiments._merge_checkpoints import coefs, inputs
from experiments._run import public_calls
from wsl import deltas, merge, tree, types

# Arguments that the experiment gives to functions that have them.
_SUPPLIED = ('base', 'key')
_TAKES = {
  ('deltas',): 'task vectors',
  ('models',): 'models',
  ('a', 'b'): 'two models',
}


class Method(NamedTuple):
  """Functions of ``wsl.merge``, applied from left to right.

  Attributes:
    name: the expression, such as ``'dare+sum'``.
    calls: the functions.
    arguments: of each function.
    takes: the operands of the first: ``'task vectors'``, ``'models'`` or ``'two
      models'``; the others take task vectors.
  """

  name: str
  calls: tuple[Callable[..., Any], ...]
  arguments: tuple[Mapping[str, Any], ...]
  takes: str


def parse(name: str, arguments: Mapping[str, Mapping[str, Any]]) -> Method:
  """Finds the functions of an expression and checks their arguments.

  Args:
    name: the expression.
    arguments: by function; those of functions outside the expression must be
      valid too.

  Returns:
    The method.

  Raises:
    ValueError: naming the function or argument that does not exist and the
      nearest that does, or an argument that is missing.

  Example:
    >>> found = parse('dare+sum', {'dare': {'rate': 0.9}})
    >>> [call.__name__ for call in found.calls], found.takes
    (['dare', 'sum'], 'task vectors')
  """
  where = f"method: '{name}'"
  for function, given in arguments.items():
    found = public_calls.find(function, [merge], where='arguments')
    public_calls.check(
      found, given, supplied=_SUPPLIED, where=f'arguments.{function}'
    )
  calls = tuple(
    public_calls.find(part, [merge], where=where) for part in name.split('+')
  )
  kinds = [_takes(call, where) for call in calls]
  if 'task vectors' in kinds and set(kinds[1:]) - {'task vectors'}:
    raise ValueError(f'{where}: only the first function may take models')
  if len(kinds) > 1 and kinds[0] != 'task vectors':
    raise ValueError(f'{where}: {calls[0].__name__} returns a model: leave '
                     f"'+{calls[1].__name__}' out")  # fmt: skip
  for call in calls:
    public_calls.check(
      call,
      arguments.get(call.__name__, {}),
      supplied=_SUPPLIED,
      where=f'arguments.{call.__name__}',
    )
  chosen = tuple(dict(arguments.get(call.__name__, {})) for call in calls)
  return Method(name, calls, chosen, kinds[0])


def build(
  method: Method,
  base: types.Params | None,
  models: Sequence[types.Params],
  factors: coefs.Factors,
  *,
  key: types.PRNGKey,
  unmatched: str,
) -> types.Params:
  """Merges models of flat names, leaf by leaf on demand.

  Args:
    method: the method.
    base: the base, or None: then functions of task vectors are given the stack
      of the models.
    models: at least one model.
    factors: the coefficients of the merged task vector, which need a base.
    key: for methods that draw random numbers.
    unmatched: as in ``deltas.stack``.

  Returns:
    The merged model; leaves that are no floats are those of the base, or the
    first model.

  Raises:
    ValueError: of the method, with its place in the config.
  """
  leader = models[0] if base is None else base
  names = inputs.floats(leader)
  dtype = inputs.common_dtype([leader, *models])
  try:
    if base is not None and method.takes == 'task vectors':
      stack = deltas.stack(base, models, dtype=dtype, unmatched=unmatched)
      merged = _of_vectors(method, {n: stack[n] for n in names}, key)
    else:
      deltas.check(
        'merge',
        {f'model {i}': x for i, x in enumerate([leader, *models])},
        mixed_dtypes=dtype is not None,
      )
      models = [inputs.pick(x, names, dtype) for x in models]
      own = None if base is None else inputs.pick(base, names, dtype)
      if method.takes == 'task vectors':
        merged = _of_vectors(method, tree.stack(models), key)
      else:
        merged = _of_models(method, own, models, key)
      if own is None or factors.identity:
        return {**leader, **merged}
      merged = merge.mean(deltas.stack(own, [merged]))
  except (ValueError, TypeError) as error:
    raise ValueError(f"method: '{method.name}': {error}") from None
  kept = {n: leader[n] for n in names}
  merged = factors.bend(merged)
  return {**leader, **deltas.apply(kept, merged, coef=factors.numbers)}


def _of_vectors(
  method: Method, stack: types.Deltas, key: types.PRNGKey
) -> types.Delta:
  """Applies functions of task vectors, one after the other."""
  shapes = {n: x.shape[1:] for n, x in stack.items() if x is not None}
  result: Any = stack
  for call, given in zip(method.calls, method.arguments):
    result = call(result, **given, **_supplied(call, key, None))
  if not isinstance(result, dict) or shapes != {
    n: x.shape for n, x in result.items() if x is not None
  }:
    raise ValueError(
      "it edits task vectors and does not merge them: add '+sum'"
    )
  return result


def _of_models(
  method: Method,
  base: types.Params | None,
  models: Sequence[types.Params],
  key: types.PRNGKey,
) -> types.Params:
  """Applies one function of models."""
  (call,), (given,) = method.calls, method.arguments
  supplied = _supplied(call, key, base)
  if method.takes == 'models':
    return call(models, **given, **supplied)
  if len(models) != 2:
    raise ValueError(f'it merges 2 models, there are {len(models)}')
  return call(*models, **given, **supplied)


def _supplied(
  call: Callable[..., Any], key: types.PRNGKey, base: types.Params | None
) -> dict[str, Any]:
  """Returns the arguments that a config does not give."""
  valid = public_calls.options(call)
  found = {'base': base, 'key': key}
  return {n: v for n, v in found.items() if n in valid and v is not None}


def _takes(call: Callable[..., Any], where: str) -> str:
  """Returns what the operands of a function are."""
  names = tuple(
    p.name
    for p in inspect.signature(call).parameters.values()
    if p.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD
  )
  if inspect.isclass(call) or names not in _TAKES:
    raise ValueError(
      f'{where}: {call.__name__} does not map models or task vectors to one: '
      "take a method such as 'ties', 'dare+sum' or 'slerp'"
    )
  return _TAKES[names]
