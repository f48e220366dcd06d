"""Tables and sample text of merged language models."""

import pathlib
from typing import Any

import numpy as np

from experiments._merge_lm import claims, titles
from experiments._run import console, spreads
from experiments._shared import protocols
from experiments._shared.texts import corpus as corpus_lib


def summarise(
  corpus: corpus_lib.Corpus,
  bounds: dict[str, Any],
  results: dict[str, Any],
  lines: dict[str, Any],
  subsets: dict[str, Any],
) -> dict[str, Any]:
  """Summarises the measurements.

  Args:
    corpus: the texts.
    bounds: from ``merging.bounds``.
    results: by method, from ``merging.sweep``.
    lines: from ``lines.measure``.
    subsets: by method, from ``wild.measure``.

  Returns:
    ``domains``, ``texts``; ``rows``, a dict for each line of the table, bounds
    first, then merges from worst to best; ``lines`` and ``subsets`` as given;
    ``claims``, by text whether it ``holds`` in every seed, and ``by`` how much
    in each.
  """
  base = np.asarray(bounds['base']['test'])
  experts = np.asarray(bounds['experts']['test'])
  row = lambda name, kind, found: _row(name, kind, found, base, experts)
  merges = [row(name, 'merge', found) for name, found in results.items()]
  return {
    'domains': list(corpus.names),
    'texts': corpus.texts,
    'rows': [
      *(row(name, 'bound', found) for name, found in bounds.items()),
      *sorted(merges, key=lambda row: -row['mean'][0]),
    ],
    'lines': lines,
    'subsets': subsets,
    'claims': claims.of_lines(corpus.names, base, lines)
    | claims.of_subsets(subsets),
  }


def _row(
  name: str,
  kind: str,
  found: dict[str, Any],
  base: np.ndarray,
  experts: np.ndarray,
) -> dict[str, Any]:
  """Returns one line of the table as numbers."""
  test = np.asarray(found['test'])
  score = protocols.merge_bench(test, experts, lower_is_better=True)
  row = {
    'method': name,
    'kind': kind,
    'mean': spreads.spread(test.mean(1)),
    'normalised': spreads.spread(score.normalised),
    'below_base': (base.mean(1) - test.mean(1)).tolist(),
    'domains': spreads.columns(test),
    'test': found['test'],
  }
  if kind == 'merge':
    row |= {k: found[k] for k in ('coef', 'arguments', 'data', 'seconds')}
  return row


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints the tables and the verdicts."""
  sections: dict[str, list[Any]] = {}
  for row in summary['rows']:
    sections.setdefault(row['kind'], []).append(_cells(row))
  heads = ('method', 'bits/byte', *summary['domains'], 'norm. %', 'seeds')
  console.show_table(
    label,
    (*heads, 'λ', 'data', 'merge s'),
    list(sections.values()),
    [
      'test bits for each byte, mean over domains; ±: standard deviation over '
      'seeds; norm.: mean over domains of own expert / model.',
      'seeds: in which the mean is below the base; λ and arguments: chosen '
      'on validation text, one choice for all seeds.',
    ],
  )
  console.show_table(
    'random subsets of the pool',
    ('method', 'λ', 'members', 'above base %', 'gain', 'over best member'),
    [_subset_cells(name, x) for name, x in summary['subsets'].items()],
    ['gain: bits for each byte below the base, and below the best member.'],
  )
  for claim, found in summary['claims'].items():
    by = ', '.join(f'{value:+.3f}' for value in found['by'])
    console.say(f'{claim}: {claims.verdict(found)} ({by})')


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
  """Formats one line of the table."""
  better = np.asarray(row['below_base']) > 0
  merged = row['kind'] == 'merge'
  return (
    titles.title(row['method']),
    spreads.text(row['mean'], digits=3),
    *(f'{mean:.2f}' for mean, _ in row['domains']),
    spreads.percent(row['normalised']),
    f'{better.sum()}/{len(better)}',
    f'{row["coef"]:g}' if merged else '',
    row['data'] if merged else '',
    f'{row["seconds"]:.2g}' if merged else '',
  )


def _subset_cells(name: str, found: dict[str, Any]) -> list[tuple[str, ...]]:
  """Formats the lines of one method, for each size and kind."""
  cells: list[tuple[str, ...]] = []
  for kind in ('untuned', 'tuned'):
    x = {k: spreads.columns(v) for k, v in found[kind].items()}
    for i, size in enumerate(found['sizes']):
      coef = 1.0 if kind == 'untuned' else found['coefs'][i]
      cells.append(
        (
          titles.title(name),
          f'{coef:g} {"" if kind == "untuned" else "tuned"}'.strip(),
          str(size),
          spreads.percent(x['beats_base'][i]),
          spreads.text(x['over_base'][i], digits=3),
          spreads.text(x['over_best'][i], digits=3),
        )
      )
  return cells


def write_samples(path: pathlib.Path, texts: list[dict[str, str]]) -> None:
  """Writes sample text, each with its prompt."""
  blocks = [
    f'== {x["domain"]}, {titles.title(x["model"])}\n{x["prompt"]}|{x["text"]}\n'
    for x in texts
  ]
  head = 'The text before | is from the test windows.\n\n'
  path.write_text(head + '\n'.join(blocks), encoding='utf-8')
