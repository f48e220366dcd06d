"""Tensors by layer and module, and means over them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import re
from typing import Any, NamedTuple

import numpy as np

from wsl import recipes, tree

OUTSIDE = ''  # the layer of tensors outside the layers
_NUMBER = re.compile(r'(?<=[./])\d+(?=[./])')


class Measure(NamedTuple):
  """A number of each tensor.

  Attributes:
    name: as in the tables.
    title: with the unit.
    of: computes it from a line of statistics; None where it is not defined.
    digits: after the point.
    low: the least value of the colour map; None takes that of the data.
    high: the greatest.
    colours: the colour map.
  """

  name: str
  title: str
  of: Callable[[Mapping[str, Any]], float | None]
  digits: int
  low: float | None
  high: float | None
  colours: str


def measures(rows: Sequence[Mapping[str, Any]]) -> list[Measure]:
  """Returns the measures that at least one tensor has."""
  has_base = any(row['base'] for row in rows)
  of = 'task vectors' if has_base else 'models'
  every = [
    Measure('cosine', f'cosine between {of}', _cosine, 2, None, None,
            'viridis'),
    Measure('conflict', f'sign conflict of {of}, %', _conflict, 1, None, None,
            'magma_r'),
    Measure('rank', f'effective rank of {of}, % of full', _rank, 0, None, None,
            'viridis'),
    Measure('change', 'norm of task vectors, % of the base', _change, 1, 0,
            None, 'viridis'),
    Measure('merged change', 'norm of the merged, % of the base',
            _merged_change, 1, 0, None, 'viridis'),
    Measure('kept', f'cosine of the merged and the {of}', _kept, 2, None, None,
            'viridis'),
  ]  # fmt: skip
  return [m for m in every if any(m.of(row) is not None for row in rows)]


def place(name: str) -> tuple[str, str]:
  """Returns the layer and the module of a tensor.

  Example:
    >>> place('model.layers.7.mlp.experts.3.w1.weight')
    ('model.layers.7', 'mlp.experts.*.w1')
    >>> place('lm_head.weight')
    ('', 'lm_head')
  """
  found = recipes.place(name)
  rest = name if found is None else found.rest[1:]
  module = _NUMBER.sub('*', rest).replace('/', '.')
  module = module.removesuffix('.weight').removesuffix('.kernel')
  layer = OUTSIDE if found is None else f'{found.stack}{found.number}'
  return layer, module


def layers(rows: Iterable[Mapping[str, Any]]) -> list[str]:
  """Returns the layers in order, those of tensors that have one."""
  found = {place(row['name'])[0] for row in rows} - {OUTSIDE}
  return tree.in_order(found)


def short(names: Sequence[str]) -> list[str]:
  """Returns layers by their numbers if they are all of one stack.

  Example:
    >>> short(['h.0', 'h.1']), short(['a.0', 'b.0'])
    (['0', '1'], ['a.0', 'b.0'])
  """
  numbers = [re.search(r'\d+$', name) for name in names]
  stacks = {name[: n.start()] for name, n in zip(names, numbers) if n}
  one = len(stacks) == 1 and all(numbers)
  return [n[0] if one and n else name for name, n in zip(names, numbers)]


def by_module(
  rows: Iterable[Mapping[str, Any]],
) -> dict[str, list[Mapping[str, Any]]]:
  """Returns the rows of each module, the largest module first."""
  found: dict[str, list[Mapping[str, Any]]] = {}
  for row in rows:
    found.setdefault(place(row['name'])[1], []).append(row)
  return dict(sorted(found.items(), key=lambda x: -parameters(x[1])))


def parameters(rows: Iterable[Mapping[str, Any]]) -> int:
  """Returns the number of parameters."""
  return sum(row['parameters'] for row in rows)


def mean(
  rows: Iterable[Mapping[str, Any]],
  of: Callable[[Mapping[str, Any]], float | None],
) -> float | None:
  """Returns the mean over tensors, weighted by their parameters."""
  pairs = [(of(row), row['parameters']) for row in rows]
  known = [(x, n) for x, n in pairs if x is not None]
  if not sum(n for _, n in known):
    return None
  values, weights = zip(*known)
  return float(np.average(values, weights=weights))


def _average(values: Iterable[float | None]) -> float | None:
  known = [x for x in values if x is not None]
  return float(np.mean(known)) if known else None


def _percent(value: float | None) -> float | None:
  return None if value is None else 100 * value


def _cosine(row: Mapping[str, Any]) -> float | None:
  lines = enumerate(row['cosine'])
  return _average(x for i, line in lines for x in line[:i])


def _conflict(row: Mapping[str, Any]) -> float | None:
  several = len(row['models']) > 1
  return _percent(row['sign_conflict']) if several else None


def _change(row: Mapping[str, Any]) -> float | None:
  return _percent(_average(row['norm_ratio'])) if row['base'] else None


def _merged_change(row: Mapping[str, Any]) -> float | None:
  return _percent(row['merged_norm_ratio']) if row['base'] else None


def _kept(row: Mapping[str, Any]) -> float | None:
  return _average(row['merged_cosine'] or ())


def _rank(row: Mapping[str, Any]) -> float | None:
  mean_rank = _average(row['effective_rank'] or ())
  return None if mean_rank is None else 100 * mean_rank / min(row['shape'])
