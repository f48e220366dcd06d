"""Progress and tables on a terminal, or plain lines in a pipe."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import sys
import time

import jax
from rich import box, table
from rich import console as rich_console
from rich import progress as rich_progress

_EVERY = 10.0  # seconds between plain lines


def say(text: str) -> None:
  """Prints one line, on process 0 only."""
  if jax.process_index() == 0:
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[str], None]]:
  """Shows the progress of a stage; yields a function to call after each step.

  Args:
    label: name of the stage.
    total: the number of steps.

  Yields:
    ``tick(note)``, which counts a step; ``note`` is shown after the counter.
  """
  if jax.process_index() != 0:
    yield lambda note: None
  elif _console().is_terminal:
    with rich_progress.Progress(
      rich_progress.TextColumn('{task.description:<12}'),
      rich_progress.BarColumn(32),
      rich_progress.MofNCompleteColumn(),
      rich_progress.TimeElapsedColumn(),
      rich_progress.TimeRemainingColumn(compact=True),
      rich_progress.TextColumn('{task.fields[note]}'),
      console=_console(),
    ) as bars:
      task = bars.add_task(label, total=total, note='')
      yield lambda note: bars.update(task, advance=1, note=note)
  else:
    yield _lines(label, total)


def _lines(label: str, total: int) -> Callable[[str], None]:
  """Returns a tick that prints the last step, and others every 10 seconds."""
  start = shown = time.monotonic()
  done = 0

  def tick(note: str) -> None:
    nonlocal done, shown
    done, now = done + 1, time.monotonic()
    if done == total or now - shown > _EVERY:
      shown = now
      say(f'{label:<12} {done}/{total}  {now - start:6.1f} s  {note}')

  return tick


def show_table(
  title: str,
  columns: Sequence[str],
  sections: Sequence[Sequence[Sequence[str]]],
  notes: Sequence[str],
) -> None:
  """Prints a table.

  Args:
    title: the line above it.
    columns: their heads.
    sections: rows in groups, a line between groups.
    notes: lines below it.
  """
  if jax.process_index() != 0:
    return
  grid = table.Table(
    title=title,
    box=box.SIMPLE_HEAD,
    title_justify='left',
    caption_justify='left',
  )
  for i, column in enumerate(columns):
    numeric = any(row[i][:1].isdigit() for rows in sections for row in rows)
    grid.add_column(
      column,
      justify='right' if numeric else 'left',
      no_wrap=column != 'arguments',
    )
  for rows in sections:
    for row in rows:
      grid.add_row(*row)
    grid.add_section()
  _console().print(grid, markup=False)
  for note in notes:
    say(note)


def _console() -> rich_console.Console:
  terminal = sys.stdout.isatty()
  return rich_console.Console(
    file=sys.stdout, width=None if terminal else 140, highlight=False
  )
