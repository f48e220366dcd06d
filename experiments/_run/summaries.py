"""The summary of a sweep: a table, ``sweep.json`` and a figure."""

from collections.abc import Callable, Sequence
import json
import pathlib
from typing import Any

import jax
import numpy as np

from experiments._run import canvas, console, spreads, sweeps
from experiments._run import entries as entries_lib

LINES = 10  # of the figure, at most


def write(
  title: str,
  folder: pathlib.Path,
  entries: Sequence[entries_lib.Entry],
  metrics: Callable[[dict[str, Any]], dict[str, float]],
) -> list[dict[str, Any]]:
  """Summarises the finished entries of a sweep, those of other jobs too.

  Args:
    title: of the table.
    folder: of the sweep.
    entries: all of it.
    metrics: maps a record to numbers by name.

  Returns:
    A dict for each finished entry: ``changes``, ``workdir``, ``seconds``, and
    ``metrics`` or ``failed``. ``sweep.json`` holds them, and the number of
    entries.
  """
  rows = []
  for entry in entries:
    record = sweeps.read(entry)
    if record is None:
      continue
    seconds = sum(record.get('seconds', {}).values())
    row = {'changes': entry.changes, 'workdir': entry.workdir}
    row['seconds'] = round(seconds, 3)
    if 'failed' in record:
      row['failed'] = record['failed']
    else:
      row['metrics'] = metrics(record)
    rows.append(row)
  if rows and jax.process_index() == 0:
    folder.mkdir(parents=True, exist_ok=True)
    found = {'entries': len(entries), 'finished': rows}
    part = folder / 'sweep.json.part'
    part.write_text(json.dumps(found, indent=2) + '\n')
    part.replace(folder / 'sweep.json')
    if any(row.get('metrics') for row in rows):
      _show(title, rows)
      _draw(folder / 'sweep.png', rows)
    failed = sum('failed' in row for row in rows)
    text = f', {failed} failed' if failed else ''
    console.say(f'{len(rows)} of {len(entries)} entries are in {folder}{text}')
  return rows


def _show(title: str, rows: Sequence[dict[str, Any]]) -> None:
  """Prints the table."""
  fields = list(dict.fromkeys(k for row in rows for k in row['changes']))
  names = list(dict.fromkeys(k for row in rows for k in row.get('metrics', {})))

  def cells(row: dict[str, Any]) -> list[str]:
    changed = [_text(row['changes'].get(field, '')) for field in fields]
    found = row.get('metrics', {})
    values = [f'{found[n]:.4g}' if n in found else '' for n in names]
    if 'failed' in row:
      values[0] = 'failed'
    return [*changed, *values]

  short = ['.'.join(field.split('.')[-2:]) for field in fields]
  heads = fields if len(set(short)) < len(short) else short
  console.show_table(title, [*heads, *names], [[*map(cells, rows)]], [])


def _text(value: Any) -> str:
  """Returns a value of the config as text."""
  if isinstance(value, (tuple, list)):
    return '+'.join(map(str, value))
  return str(value)


def _draw(file: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
  """Draws the first metric against the number with most values.

  Entries that differ only in a seed are one line, of mean and deviation.
  """
  good = [row for row in rows if row.get('metrics')]
  values: dict[str, set[str]] = {}
  for row in good:
    for field, value in row['changes'].items():
      values.setdefault(field, set()).add(_text(value))
  free = {f: x for f, x in values.items() if not f.endswith('seed')}
  numeric = [field for field, x in free.items() if all(map(_is_number, x))]
  if not numeric:
    return
  x = max(numeric, key=lambda field: len(values[field]))
  lines: dict[str, dict[float, list[float]]] = {}
  for row in good:
    if x in row['changes']:
      texts = {k: _text(row['changes'][k]) for k in free if k in row['changes']}
      name = ' '.join(
        f'{k.rpartition(".")[2]}={text}' if _is_number(text) else text
        for k, text in texts.items()
        if k != x and len(values[k]) > 1
      )
      points = lines.setdefault(name, {})
      y = next(iter(row['metrics'].values()))
      points.setdefault(float(_text(row['changes'][x])), []).append(y)
  fig, ax = canvas.single(9, 4.5)
  for number, (name, points) in enumerate([*lines.items()][:LINES]):
    at = sorted(points)
    mean, deviation = np.transpose([spreads.spread(points[t]) for t in at])
    colour = f'C{number}'
    label = name or None
    canvas.curve(ax, at, mean, deviation, colour=colour, label=label)
  ax.set(xlabel=x, ylabel=next(iter(good[0]['metrics'])))
  if len(lines) > 1:
    canvas.legend(ax, '')
  canvas.save(fig, file)


def _is_number(text: str) -> bool:
  """Returns whether a text is a number."""
  try:
    float(text)
  except ValueError:
    return False
  return True
