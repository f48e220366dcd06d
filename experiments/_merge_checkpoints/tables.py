"""Means of the statistics: of the model, and by module."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments._merge_checkpoints import modules
from experiments._run import console

_SHOWN = 20
Rows = Sequence[Mapping[str, Any]]


def summarise(rows: Rows) -> dict[str, Any]:
  """Returns means over all tensors, and over those of each module.

  Args:
    rows: of ``parts.statistics``.

  Returns:
    ``all`` and ``modules``: means weighted by parameters, by measure.
  """
  grouped = modules.by_module(rows)
  return {
    'all': _means(rows, rows),
    'modules': [
      {'module': name, **_means(own, rows)} for name, own in grouped.items()
    ],
  }


def _means(own: Rows, rows: Rows) -> dict[str, Any]:
  """Returns the means of some of the rows."""
  means = {m.name: modules.mean(own, m.of) for m in modules.measures(rows)}
  size = {'tensors': len(own), 'parameters': modules.parameters(own)}
  return {**size, **means}


def by_module(rows: Rows, summary: Mapping[str, Any]) -> list[list[str]]:
  """Returns the table by module as text, the column heads first."""
  measures = modules.measures(rows)
  heads = ['module', 'tensors', 'parameters', *(m.name for m in measures)]
  body = [
    [
      one['module'],
      f'{one["tensors"]}',
      f'{one["parameters"]:,}',
      *(number(one[m.name], m.digits) for m in measures),
    ]
    for one in [*summary['modules'], {'module': 'all', **summary['all']}]
  ]
  return [heads, *body]


def by_tensor(rows: Rows) -> list[list[str]]:
  """Returns the table by tensor as text, the column heads first."""
  measures = modules.measures(rows)
  heads = ['tensor', 'shape', 'dtype', *(m.name for m in measures)]
  body = [
    [
      row['name'],
      ' × '.join(map(str, row['shape'])),
      row['dtype'],
      *(number(m.of(row), m.digits) for m in measures),
    ]
    for row in rows
  ]
  return [heads, *body]


def show(title: str, rows: Rows, summary: Mapping[str, Any]) -> None:
  """Prints the table by module, the largest modules and all."""
  if not rows:
    return
  heads, *body = by_module(rows, summary)
  groups = [body[:-1][:_SHOWN], body[-1:]]
  notes = [f'{m.name}: {m.title}' for m in modules.measures(rows)]
  console.show_table(title, heads, groups, notes)


def number(value: float | None, digits: int) -> str:
  """Formats a number, or a dash where there is none.

  Example:
    >>> number(0.1234, 2), number(None, 2)
    ('0.12', '–')
  """
  return '–' if value is None else f'{value:.{digits}f}'
