"""The plan of a merge as a table."""

import pathlib
from typing import NamedTuple

from experiments._merge_checkpoints import settings
from experiments._run import console
from wsl import checkpoint, recipes

_SHOWN = 8


class Table(NamedTuple):
  """A plan as text: totals, the largest tensors, and what would stop it."""

  totals: list[tuple[str, str]]
  largest: list[tuple[str, ...]]
  mistakes: tuple[str, ...]


COLUMNS = ('tensor', 'kind', 'read', 'write', 'hold', 'computed')


def make(
  setting: settings.Setting, out: pathlib.Path, *, probe: bool = False
) -> Table:
  """Plans the save; no tensor is read.

  Args:
    setting: the merge.
    out: the folder of the merged model.
    probe: whether to measure the disk for a second, to estimate the time.
  """
  plan = checkpoint.plan(setting.merged.params, path=out, probe=probe)
  passes = sum(x.passes * x.leaves for x in plan.statistics)
  size = checkpoint.format_bytes
  totals = [
    ('tensors', f'{len(plan.leaves)}'),
    ('computed in chunks', f'{sum(x.how == "in chunks" for x in plan.leaves)}'),
    ('computed as a whole', f'{sum(x.how == "whole" for x in plan.leaves)}'),
    ('copied', f'{sum(x.how == "copied" for x in plan.leaves)}'),
    ('read', size(plan.bytes_in)),
    ('write', size(plan.bytes_out)),
    ('statistics', f'about {passes} reads of a tensor' if passes else 'none'),
    ('hold at once', size(plan.peak_bytes)),
    ('process at its peak', f'about {size(plan.process_bytes)}'),
  ]
  if plan.seconds is not None:
    totals.append(('time', f'about {plan.seconds:.1f} s'))
  largest = sorted(plan.leaves, key=lambda x: -x.bytes_out)[:_SHOWN]
  rows = [
    (
      x.name,
      f'{x.dtype}{list(x.shape)}',
      *map(size, (x.bytes_in, x.bytes_out, x.peak_bytes)),
      x.how,
    )
    for x in largest
  ]
  return Table(totals, rows, plan.mistakes)


def show(title: str, table: Table, merged: recipes.Merged) -> None:
  """Prints the plan, the values of parameters and the notes."""
  console.show_table(title, ('plan', ''), [table.totals], [])
  console.show_table('', COLUMNS, [table.largest], [])
  for line in recipes.describe_parameters(merged.parameters):
    console.say(line)
  for note in dict.fromkeys(merged.notes):
    console.say(f'note: {note}')
  for mistake in table.mistakes:
    console.say(f'MISTAKE: {mistake}')
