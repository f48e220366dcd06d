"""The table of pretrained pairs."""

from typing import Any

import numpy as np

from experiments._align_pretrained import rows as rows_lib
from experiments._align_pretrained import settings
from experiments._run import console
from experiments._shared import alignments

_MEASURES = {'style': 'mixture', 'resnet': 'loss'}


def height(kind: str, line: dict[str, Any]) -> float:
  """Returns the largest height of a line.

  For classifiers it is that of the loss above its chord; for networks of style
  transfer the distance from the mixture of the images of both ends.
  """
  y = np.asarray(line[_MEASURES[kind]])
  t = np.asarray(line['t'])
  return float(np.max(y - ((1 - t) * y[0] + t * y[-1])))


def summarise(
  setting: settings.Setting, results: dict[str, dict[str, Any]]
) -> dict[str, Any]:
  """Returns ``rows``: a dict for each pair and row, and ``recovered``.

  ``recovered`` is, by pair, how far apart planted copies are after matching.
  """
  kind = setting.config.kind
  rows = []
  for pair, found in results.items():
    for name, one in found.items():
      line = one['line']
      middle = len(line['t']) // 2
      rows.append(
        {
          'pair': pair,
          'row': name,
          'apart': one['apart'],
          'removed': one['removed'],
          'height': height(kind, line),
          'middle': {k: v[middle] for k, v in line.items() if k != 't'},
          'ends': {k: [v[0], v[-1]] for k, v in line.items() if k != 't'},
        }
      )
  planted = {pair: found['planted']['apart'] for pair, found in results.items()}
  return {'kind': kind, 'rows': rows, 'recovered': planted}


def title(name: str) -> str:
  """Returns the title of a row."""
  return alignments.row_title(name)


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints the table."""
  groups: dict[bool, list[tuple[str, ...]]] = {False: [], True: []}
  style = summary['kind'] == 'style'
  for row in summary['rows']:
    groups[row['row'] in rows_lib.CONTROLS].append(_cells(row, style))
  if style:
    heads = ('mixture', 'to first', 'to second', 'contrast')
    notes = [
      'largest distance of the images on the line from the mixture of those of '
      'both ends, and at the middle: distance from those of each end, and '
      'contrast; in standard deviations of the images of the first end'
    ]
  else:
    heads = ('barrier', 'loss', 'middle %', 'ends %')
    notes = ['moments are reset at every point of the line']
  notes.append(
    'apart: 1 for orthogonal weights, 0 for equal ones; removed: of the '
    'distance, between networks in the same form'
  )
  columns = ('pair', 'second network', 'apart', 'removed %', *heads)
  console.show_table(label, columns, [groups[False], groups[True]], notes)


def _cells(row: dict[str, Any], style: bool) -> tuple[str, ...]:
  """Formats one line of the table."""
  middle = row['middle']
  if style:
    values = [middle[k] for k in ('first', 'second', 'contrast')]
    rest = [f'{v:.2f}' for v in (row['height'], *values)]
  else:
    ends = '/'.join(f'{100 * (1 - e):.1f}' for e in row['ends']['error'])
    rest = [f'{v:.3f}' for v in (row['height'], middle['loss'])]
    rest += [f'{100 * (1 - middle["error"]):.1f}', ends]
  return (
    row['pair'],
    title(row['row']),
    f'{row["apart"]:.3f}',
    f'{100 * row["removed"]:.1f}',
    *rest,
  )
