"""The report of a merge: one HTML file that needs no other file."""

import base64
from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from experiments._merge_checkpoints import (
  figures,
  markup,
  modules,
  plans,
  tables,
)
from experiments._run import platforms, records
from wsl import checkpoint, recipes

_STYLE = pathlib.Path(__file__).parent / 'page.css'
_MOST_ROWS = 1000
_WIDE = 'layers.png'
Rows = Sequence[Mapping[str, Any]]


def write(
  out: records.Run,
  record: Mapping[str, Any],
  plan: plans.Table,
  rows: Rows,
  merged: recipes.Merged,
  drawn: Sequence[figures.Drawn],
) -> None:
  """Writes ``report.html`` into the folder of a run.

  Args:
    out: the folder, and the times of its parts.
    record: of the run, without versions and device.
    plan: of the merge.
    rows: of ``parts.statistics``.
    merged: the merged model, for the values of parameters.
    drawn: the figures.
  """
  sections = [
    ('Recipe', _recipe(record)),
    ('Inputs', _inputs(record)),
    ('Plan', _plan(plan)),
    ('Coefficients', _coefficients(record, merged)),
    ('Statistics', _statistics(record, rows, drawn)),
    ('Output', _output(record)),
    ('Environment', _environment(out)),
  ]
  links = ''.join(
    f'<a href="#{title.lower()}">{title}</a>' for title, _ in sections
  )
  body = ''.join(
    f'<section id="{title.lower()}"><h2>{title}</h2>{content}</section>'
    for title, content in sections
  )
  models = ', '.join(figures.label(x['name']) for x in record['inputs'])
  method = record['method'].removeprefix('wsl.merge: ')
  text = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>Merge report: {markup.safe(method)}</title>'
    f'<style>{_STYLE.read_text(encoding="utf-8")}</style></head><body>'
    f'<header><h1>Merge by {markup.safe(method)}</h1>'
    f'<div class="soft">{markup.safe(models)}</div>'
    f'<nav>{links}</nav></header>{_cards(out, record)}{body}'
    '<footer>Written by <code>python -m experiments.merge_checkpoints'
    '</code> of wsl. The lines behind the figures are in <code>statistics.jsonl'
    '</code>, all other numbers in <code>record.json</code>.</footer>'
    '</body></html>\n'
  )
  part = out.path / 'report.html.part'
  part.write_text(text, encoding='utf-8')
  part.replace(out.path / 'report.html')


def _cards(out: records.Run, record: Mapping[str, Any]) -> str:
  """Returns the most important numbers."""
  output, means = record['output'], record['statistics']['all']
  cards = [
    (markup.count(output['parameters']), 'parameters'),
    (f'{output["tensors"]}', 'tensors'),
    (checkpoint.format_bytes(output['bytes']), ', '.join(output['dtypes'])),
    (f'{out.seconds["merge"]:.1f} s', 'to merge and save'),
  ]
  shown = {
    'cosine': ('mean cosine', ''),
    'conflict': ('mean sign conflict', ' %'),
    'merged change': ('change of the base', ' %'),
  }
  for name, (title, unit) in shown.items():
    if means.get(name) is not None:
      digits = 1 if unit else 2
      cards.append((f'{means[name]:.{digits}f}{unit}', title))
  inner = ''.join(
    f'<div class="card"><b>{markup.safe(value)}</b>'
    f'<span>{markup.safe(title)}</span></div>'
    for value, title in cards
  )
  return f'<div class="cards">{inner}</div>'


def _recipe(record: Mapping[str, Any]) -> str:
  """Returns the recipe, and notes on what it does not state."""
  notes = ''.join(f'<li>{markup.safe(note)}</li>' for note in record['notes'])
  text = f'<pre>{markup.safe(record["recipe"].strip())}</pre>'
  return text + (f'<h3>Notes</h3><ul>{notes}</ul>' if notes else '')


def _inputs(record: Mapping[str, Any]) -> str:
  """Returns the table of models and hashes."""
  body = [
    [
      f'{markup.safe(x["name"])}<div class="hash">{x["digest"]}</div>',
      markup.safe(x['licence']),
      f'{x["tensors"]}',
      f'{x["parameters"]:,}',
      checkpoint.format_bytes(x['bytes']),
      ', '.join(x['dtypes']),
    ]
    for x in record['inputs']
  ]
  heads = [
    'model, SHA-256',
    'licence',
    'tensors',
    'parameters',
    'size',
    'dtypes',
  ]
  return markup.table(heads, body, escaped=True)


def _plan(plan: plans.Table) -> str:
  """Returns the totals of the plan and its largest tensors."""
  totals = [list(pair) for pair in plan.totals]
  largest = [list(row) for row in plan.largest]
  return (
    f'<div class="facts">{markup.table(["", ""], totals)}</div>'
    + '<h3>Largest tensors</h3>'
    + markup.table(list(plans.COLUMNS), largest)
  )


def _coefficients(record: Mapping[str, Any], merged: recipes.Merged) -> str:
  """Returns the values of parameters: by condition, and by tensor."""
  if not record['parameters']:
    return '<p class="soft">The method has none.</p>'
  lines = ''.join(f'<li>{markup.safe(x)}</li>' for x in record['parameters'])
  groups = recipes.group_parameters(merged.parameters)
  body = []
  for name in list(merged.parameters)[:_MOST_ROWS]:
    own = [x.get(name) for x in groups.values()]
    rules = ', '.join(dict.fromkeys(v.rule for v in own if v and v.rule))
    body.append([name, *('–' if v is None else _short(v.value) for v in own)])
    body[-1].append(rules)
  more = _more(len(merged.parameters))
  return (
    f'<ul>{lines}</ul><details><summary>By tensor</summary>'
    f'{markup.table(["tensor", *groups, "condition"], body)}{more}</details>'
  )


def _statistics(
  record: Mapping[str, Any], rows: Rows, drawn: Sequence[figures.Drawn]
) -> str:
  """Returns figures and tables of the statistics."""
  if not rows:
    return '<p class="soft">No tensor is merged; all are copied.</p>'
  shown = ''.join(map(_figure, drawn))
  meanings = ''.join(
    f'<li><b>{m.name}</b>: {markup.safe(m.title)}</li>'
    for m in modules.measures(rows)
  )
  heads, *means = tables.by_module(rows, record['statistics'])
  columns, *body = tables.by_tensor(rows[:_MOST_ROWS])
  return (
    f'{shown}<h3>By module</h3><ul>{meanings}</ul>'
    f'{markup.table(heads, means, last_is_sum=True)}'
    f'<details><summary>By tensor</summary>{markup.table(columns, body)}'
    f'{_more(len(rows))}</details>'
  )


def _figure(drawn: figures.Drawn) -> str:
  """Returns a figure with its image inside the page."""
  data = base64.b64encode(drawn.svg.encode()).decode()
  title = markup.safe(drawn.title)
  kind = '' if drawn.file == _WIDE else ' class="half"'
  return (
    f'<figure{kind}><h3>{title}</h3><img alt="{title}"'
    f' src="data:image/svg+xml;base64,{data}">'
    f'<figcaption>{markup.safe(drawn.caption)}</figcaption></figure>'
  )


def _output(record: Mapping[str, Any]) -> str:
  """Returns the files that were written."""
  body = [
    [
      f'{markup.safe(x["file"])}<div class="hash">{x["sha256"]}</div>',
      checkpoint.format_bytes(x['bytes']),
    ]
    for x in record['output']['files']
  ]
  return markup.table(['file, SHA-256', 'size'], body, escaped=True)


def _environment(out: records.Run) -> str:
  """Returns versions, device and times."""
  device = platforms.device()
  versions = [f'{k} {v}' for k, v in platforms.versions().items()]
  times = [f'{k} {v:.1f} s' for k, v in out.seconds.items()]
  rows = [
    ['versions', ', '.join(versions)],
    ['device', f'{device["devices"]} × {device["kind"]}, {device["cores"]} '
     'cores'],
    ['wall time', ', '.join(times)],
  ]  # fmt: skip
  return f'<div class="facts">{markup.table(["", ""], rows)}</div>'


def _more(rows: int) -> str:
  """Returns a line about rows that are not shown."""
  rest = rows - _MOST_ROWS
  return f'<p class="soft">and {rest} more</p>' if rest > 0 else ''


def _short(value: Any) -> str:
  return f'{value:.4g}' if isinstance(value, float) else str(value)
