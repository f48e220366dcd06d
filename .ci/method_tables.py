"""Writes the tables of wsl/README.md from the docstrings of the rooms.

Run ``python .ci/method_tables.py`` from the root of the repository after a
public docstring has changed; a test compares the file with what it writes.
"""

import importlib
import inspect
import pathlib
import re
import types

FILE = pathlib.Path(__file__).parents[1] / 'wsl' / 'README.md'
BEGIN, END = '<!-- table of wsl.{room} -->\n', '<!-- end of table -->\n'
HEAD = '| name | description | reference |\n|---|---|---|\n'


def public(room: types.ModuleType) -> dict[str, object]:
  """Returns a room's functions and classes by name, without old names."""
  return {
    name: value
    for name, value in vars(room).items()
    if not name.startswith('_')
    and (inspect.isfunction(value) or inspect.isclass(value))
    and value.__module__.startswith(room.__name__)
    and not (inspect.getdoc(value) or '').startswith('Deprecated')
  }


def row(name: str, value: object) -> str:
  """Returns the line of a table: name, first line of the docstring, paper."""
  doc = inspect.getdoc(value) or ''
  found = re.search(r'\n *References?:\n((?: +.*\n?|\n)+)', doc)
  reference = ' '.join(found[1].split()) if found else ''
  # A title may be broken at a hyphen.
  reference = re.sub(r'(\w)- (?=[A-Z])', r'\1-', reference)
  reference = re.sub(r'"([^"]*)"', r'*\1*', reference)
  reference = re.sub(
    r'arXiv:(\d{4}\.\d{4,5})',
    r'[arXiv:\1](https://arxiv.org/abs/\1)',
    reference,
  )
  cells = f'| `{name}` | {plain(doc)} | {reference} |\n'
  return cells.replace('``', '`')


def plain(doc: str) -> str:
  """Returns the first line of a docstring, as Markdown."""
  first = doc.partition('\n')[0].replace('|', r'\|')
  return re.sub(r':math:`([^`]*)`', r'$\1$', first)


def rewrite(text: str) -> str:
  """Replaces the lines between the markers of each table."""
  pattern = (
    re.escape(BEGIN).replace(r'\{room\}', r'(\w+)') + '.*?' + re.escape(END)
  )

  def table(found: re.Match[str]) -> str:
    room = importlib.import_module(f'wsl.{found[1]}')
    rows = (row(name, value) for name, value in public(room).items())
    return BEGIN.format(room=found[1]) + HEAD + ''.join(rows) + END

  return re.sub(pattern, table, text, flags=re.DOTALL)


if __name__ == '__main__':
  FILE.write_text(rewrite(FILE.read_text()))
