"""Tables and figures of a comparison."""

import math
import pathlib
import re
from typing import Any

import numpy as np

from experiments._compare_checkpoints import differences
from experiments._run import canvas, console

_LAYER = re.compile(r'^(.*?\d+)(?=[./]|$)')
_SHOWN = 8  # names in one line
_LABELS = 80  # of layers in the figure


def show(title: str, record: dict[str, Any], most: int) -> None:
  """Prints the tensors that differ most, the structure, and the verdict."""
  rows = differences.worst(record['tensors'])
  table = [
    [
      row['name'],
      _pair(row['dtype'], row['dtype_b']),
      'x'.join(map(str, row['shape'])),
      f'{100 * row["differing"] / row["entries"]:.3g}',
      *(_number(row[k]) for k in ('max_ulps', 'max_abs', 'max_rel')),
      _number(row['relative']),
    ]
    for row in rows[:most]
  ]
  columns = ['tensor', 'dtype', 'shape', 'differing %', 'max ulps']
  columns += ['max |a-b|', 'max relative', '|a-b| / |a|']
  notes = []
  if len(rows) > most:
    notes.append(f'... and {len(rows) - most} more in differences.jsonl')
  if table:
    console.show_table(title, columns, [table], notes)
  for line in lines(record['structure']):
    console.say(line)
  console.say(verdict(record))


def _pair(a: str, b: str) -> str:
  return a if a == b else f'{a}, {b}'


def _number(value: float | None) -> str:
  """Formats a number; a dash where it is not defined, or not finite."""
  if value is None:
    return '-'
  return str(value) if isinstance(value, int) else f'{value:.3g}'


def lines(structure: dict[str, Any]) -> list[str]:
  """Describes what differs in structure, a line for each kind."""
  found = []
  for side in 'ab':
    only = structure[f'only_in_{side}']
    names = [
      name if copy is None else f'{name} (a copy of {copy})'
      for name, copy in only.items()
    ]
    found += _line(f'only in {side}', names)
  for kind in ('shapes', 'dtypes', 'metadata'):
    pairs = structure[kind].items()
    found += _line(kind, [f'{k}: {a} and {b}' for k, (a, b) in pairs])
  for name, value in structure['files'].items():
    if isinstance(value, dict):
      value = [f'{k}: {a} and {b}' for k, (a, b) in value.items()]
    found += _line(name, [value] if isinstance(value, str) else value)
  return found


def _line(kind: str, items: list[str]) -> list[str]:
  """Returns one line, or none if there are no items."""
  if not items:
    return []
  more = len(items) - _SHOWN
  items = items[:_SHOWN] + ([f'... and {more} more'] if more > 0 else [])
  return [f'{kind}: {", ".join(items)}']


def verdict(record: dict[str, Any]) -> str:
  """Says in one line whether the checkpoints are equal."""
  rows, count = record['tensors'], len(record['tensors'])
  if record['equal']:
    files = '' if record['same_files'] else ', metadata or files differ'
    return f'equal: {count} tensors, bit by bit{files}'
  differing = [row for row in rows if row['differing']]
  steps = [row['max_ulps'] for row in rows]
  rounded = ''
  if differing and None not in steps:
    rounded = f', by at most {max(steps)} ulps'
  if differing and set(steps) == {0}:
    rounded = ', by 0 ulps: in dtype, by rounding to it, or in signs of zeros'
  if unordered := sum(row['unordered'] for row in rows):
    rounded += f'; {unordered} entries are NaN in one of the two only'
  return f'different: {len(differing)} of {count} common tensors{rounded}'


def draw(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Draws by layer how many entries differ by how many ulps, and the norms."""
  groups = _groups([row for row in rows if row['bins'] and row['entries']])
  if not groups:
    return
  length = max(len(row['bins']) for part in groups.values() for row in part)
  counts = np.zeros((len(groups), max(length, 2)))
  relative = np.zeros(len(groups))
  for i, part in enumerate(groups.values()):
    for row in part:
      counts[i, : len(row['bins'])] += row['bins']
    distance, norm = (
      math.hypot(*(row[k] or 0.0 for row in part)) for k in ('distance', 'norm')
    )
    relative[i] = distance / norm if norm else 0.0
  share = 100 * counts / counts.sum(1, keepdims=True)
  height = min(1.6 + 0.26 * len(groups), 24)
  fig, ((left, right),) = canvas.grid(11, height, 1, 2, share=True)
  shown = np.ma.masked_equal(share, 0)
  image = left.imshow(
    np.ma.log10(shown), aspect='auto', cmap='viridis', vmin=-4, vmax=2
  )
  left.grid(visible=False)
  left.set_xticks(range(counts.shape[1]), _labels(counts.shape[1]), rotation=90)
  every = math.ceil(len(groups) / _LABELS)
  left.set_yticks(range(0, len(groups), every), list(groups)[::every])
  left.set_xlabel('ulps between the two values; a power of 2 and above')
  canvas.heading(left, 'share of entries')
  bar = fig.colorbar(image, ax=left, ticks=range(-4, 3), pad=0.02)
  bar.ax.set_yticklabels(
    [f'{10.0**i:g} %' for i in range(-4, 3)], color=canvas.INK
  )
  places = np.flatnonzero(relative)
  right.plot(relative[places], places, 'o', color='#1f6fb4')
  if len(places) and relative.max() > 10 * relative[places].min():
    right.set_xscale('log')
  else:
    right.set_xlim(0, 1.1 * relative.max() or 1.0)
    right.ticklabel_format(axis='x', style='sci', scilimits=(-2, 2))
  right.grid(axis='both', color='#e6e6e6', lw=0.8)
  right.set_xlabel('|a - b| / |a|')
  canvas.heading(right, 'relative norm; no point: equal')
  canvas.save(fig, path)


def _groups(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
  """Groups tensors by layer; others by their name without its last part."""
  found: dict[str, list[dict[str, Any]]] = {}
  for row in rows:
    layer = _LAYER.match(row['name'])
    group = layer[1] if layer else re.sub(r'(?<=.)[./][^./]+$', '', row['name'])
    found.setdefault(group, []).append(row)
  return found


def _labels(count: int) -> list[str]:
  """Names the bins of ulps: 0, 1, 2-3, 4-7, ...; from 16 on by their start."""
  labels = ['0', '1', '2-3', '4-7', '8-15']
  return (labels + [f'$2^{{{i - 1}}}$' for i in range(len(labels), count)])[
    :count
  ]
