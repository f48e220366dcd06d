"""What models of one merge have in common: float leaves, dtypes, shapes."""

from collections.abc import Mapping, Sequence

from wsl import deltas, recipes, tree, types


def inputs(
  base_model: recipes.Model | None,
  base: types.Params | None,
  models: Mapping[recipes.Model, types.Params],
) -> dict[str, recipes.Inputs]:
  """Returns what each float tensor is merged from, in one dtype.

  Tensors that some models lack or have in another shape are left out.
  """
  every = [*models.values(), *([] if base is None else [base])]
  dtype = common_dtype(every)
  shared = [
    n
    for n in floats(every[-1])
    if all(n in x and x[n].shape == every[-1][n].shape for x in every)
  ]
  own = {} if base is None else pick(base, shared, dtype)
  others = {m: pick(x, shared, dtype) for m, x in models.items()}
  return {
    n: recipes.Inputs(
      base_model, own.get(n), {m: x[n] for m, x in others.items()}
    )
    for n in shared
  }


def check_unmatched(
  base: types.Params | None,
  models: Mapping[recipes.Model, types.Params],
  rule: str,
) -> list[str]:
  """Returns a note on each tensor that does not match the base's.

  Args:
    base: the base, or None.
    models: the models, by reference.
    rule: as in ``deltas.stack``.

  Raises:
    ValueError: if the rule is ``'error'``, naming the first.
  """
  labels = list(map(str, models))
  every = [] if base is None else deltas.unmatched(base, list(models.values()))
  found: dict[str, list[str]] = {}
  for x in every:
    place = f"'{x.name}' ({x.reason})"
    found.setdefault(place, []).append(labels[x.model])
  notes = [f'{place} in {", ".join(own)}' for place, own in found.items()]
  if notes and rule == 'error':
    raise ValueError(
      f'models: unmatched {notes[0]}{_more(len(notes) - 1)}: '
      "--config.unmatched=base keeps the base's, =zero takes it as unchanged"
    )
  return [f'{note}: unmatched={rule}' for note in notes]


def _more(count: int) -> str:
  return f', and {count} more' if count else ''


def floats(params: types.Params) -> list[str]:
  """Returns the names of the float leaves."""
  return [n for n, x in params.items() if tree.is_float(x)]


def common_dtype(models: Sequence[types.Params]) -> str | None:
  """Returns a dtype that holds all float leaves; None if they have one."""
  found = {x.dtype: x for m in models for x in m.values() if tree.is_float(x)}
  return None if len(found) < 2 else str(tree.wide_dtype(*found.values()))


def pick(
  params: types.Params, names: Sequence[str], dtype: str | None
) -> types.Params:
  """Returns leaves by name, in one dtype."""
  chosen = {n: params[n] for n in names}
  return chosen if dtype is None else tree.cast(chosen, dtype)
