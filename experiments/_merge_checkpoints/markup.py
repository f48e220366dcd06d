"""Pieces of HTML: escaped text, tables, counts."""

from collections.abc import Sequence
import html


def table(
  heads: Sequence[str],
  body: Sequence[Sequence[str]],
  *,
  escaped: bool = False,
  last_is_sum: bool = False,
) -> str:
  """Returns a table; columns of numbers are aligned to the right.

  Args:
    heads: of the columns; without any text, there is no line of heads.
    body: the rows.
    escaped: whether the cells are HTML already.
    last_is_sum: whether the last row is a total of the others.
  """
  show = str if escaped else safe
  numeric = [
    i > 0 and all(_is_number(row[i]) for row in body) for i in range(len(heads))
  ]
  marks = [' class="n"' if n else '' for n in numeric]
  head = ''.join(f'<th{m}>{safe(x)}</th>' for m, x in zip(marks, heads))
  lines = []
  for k, row in enumerate(body):
    cells = ''.join(f'<td{m}>{show(x)}</td>' for m, x in zip(marks, row))
    total = last_is_sum and k == len(body) - 1
    lines.append(
      f'<tr class="sum">{cells}</tr>' if total else f'<tr>{cells}</tr>'
    )
  top = f'<thead><tr>{head}</tr></thead>' if any(heads) else ''
  rows = f'<tbody>{"".join(lines)}</tbody>'
  return f'<div class="wide"><table>{top}{rows}</table></div>'


def _is_number(text: str) -> bool:
  return text == '–' or (text.lstrip('-')[:1].isdigit() and '×' not in text)


def count(number: int) -> str:
  """Formats a count of parameters.

  Example:
    >>> count(22_713_216), count(512)
    ('22.7 M', '512')
  """
  for size, unit in ((10**9, ' B'), (10**6, ' M'), (10**4, ' k')):
    if number >= size:
      return f'{number / (1000 if size == 10**4 else size):.1f}{unit}'
  return f'{number:,}'


def safe(text: str) -> str:
  """Escapes text."""
  return html.escape(str(text))
