"""Rates and distortions: rows, claims, the table and the figure."""

from collections.abc import Iterator
import pathlib
from typing import Any

import numpy as np

from experiments._run import canvas, console, spreads, verdicts

STYLES = {
  'compeft': ('ComPEFT', '#1f6fb4'),
  'compeft_mean': ('ComPEFT, mean scale', '#6fa8dc'),
  'skillpack': ('SkillPack', '#c23b3b'),
  'skillpack_plain': ('SkillPack, no moments', '#e8871e'),
  'bitstack': ('BitStack', '#2a8c4a'),
  'svd': ('SVD in float16', '#7f7f7f'),
  'tall_masks': ('TALL masks', '#8c6d31'),
  'emr': ('EMR', '#c2559d'),
}
# A restored expert has lost nothing if it is within this of the expert.
_LOSS = 0.01
# Bits an entry at which codecs are compared.
_BITS = 1.0


def summarise(
  bounds: dict[str, Any], results: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
  """Averages over tasks, and judges the claims of the papers.

  Returns:
    ``rows``: codec, point, and ``bits``, ``headers``, ``bounds``, ``error`` and
    ``accuracy`` by seed; ``experts`` and ``base``, accuracies by seed; and
    ``claims``.
  """
  mean = lambda x: np.asarray(x, np.float64).mean(1)
  rows = []
  for codec, points in results.items():
    for found in points:
      values = {k: v for k, v in found.items() if k != 'point'}
      row = {'codec': codec, 'point': found['point']}
      rows.append(row | {k: mean(v).tolist() for k, v in values.items()})
  experts, base = mean(bounds['experts']), mean(bounds['base'])
  return {
    'rows': rows,
    'experts': experts.tolist(),
    'base': base.tolist(),
    'claims': verdicts.judge(gains(rows, experts)),
  }


def _curve(
  rows: list[dict[str, Any]], codec: str, name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean bits ``[N]``, rising, and a value ``[N, S]``."""
  found = [row for row in rows if row['codec'] == codec]
  bits = np.asarray([np.mean(row['bits']) for row in found])
  order = np.argsort(bits)
  return bits[order], np.asarray([row[name] for row in found])[order]


def _at(rows: list[dict[str, Any]], codec: str, name: str) -> Any:
  """Interpolates a value to 1 bit an entry, ``[S]``; None beyond the sizes."""
  bits, values = _curve(rows, codec, name)
  if not len(bits) or not bits[0] <= _BITS <= bits[-1]:
    return None
  at = np.log(_BITS)
  return np.asarray([np.interp(at, np.log(bits), v) for v in values.T])


def gains(
  rows: list[dict[str, Any]], experts: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields claims of the papers, and by how much each holds, ``[S]``."""
  for row in rows:
    accuracy = np.asarray(row['accuracy'])
    kept = accuracy / experts
    times = 16 / np.mean(row['bits'])
    if row['codec'] == 'compeft' and 8 <= times <= 50:
      yield (
        f'ComPEFT, {times:.0f} times below 16 bits: within a point of the '
        'experts',
        accuracy - (experts - _LOSS),
      )
    if row['codec'] in ('tall_masks', 'emr'):
      name = STYLES[row['codec']][0]
      yield f'{name} keeps 99 % of the accuracy', kept - 0.99
  _, errors = _curve(rows, 'bitstack', 'error')
  if len(errors) > 1:
    falls = -np.diff(errors, axis=0).max(0)
    yield 'BitStack: each budget has a lower error than the one below', falls
  for better, other, name, sign in (
    ('bitstack', 'svd', 'error', -1),
    ('skillpack', 'svd', 'error', -1),
    ('skillpack_plain', 'svd', 'error', -1),
    ('skillpack', 'skillpack_plain', 'accuracy', 1),
    ('compeft', 'svd', 'accuracy', 1),
    ('skillpack', 'compeft', 'accuracy', 1),
    ('compeft', 'compeft_mean', 'accuracy', 1),
  ):
    pair = [_at(rows, codec, name) for codec in (better, other)]
    if pair[0] is not None and pair[1] is not None:
      word = 'lower error' if sign < 0 else 'more accuracy'
      yield (
        f'{STYLES[better][0]}: {word} than {STYLES[other][0]} at 1 bit',
        sign * (pair[0] - pair[1]),
      )


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints the table, and the verdicts on the claims."""
  sections: dict[str, list[Any]] = {}
  for row in summary['rows']:
    pair = {k: spreads.spread(v) for k, v in row.items() if isinstance(v, list)}
    bits = pair['bits'][0]
    sections.setdefault(row['codec'], []).append((
      STYLES[row['codec']][0],
      f'{row["point"]:g}' if row['point'] else '',
      f'{bits:.3f}', f'{16 / max(bits, 1e-9):.1f}',
      f'{bits / max(pair["bounds"][0], 1e-9):.3f}',
      f'{pair["headers"][0]:.3f}',
      spreads.text(pair['error'], digits=3),
      spreads.percent(pair['accuracy']),
    ))  # fmt: skip
  experts, base = (
    spreads.percent(spreads.spread(summary[k])) for k in ('experts', 'base')
  )
  console.show_table(
    label,
    ('codec', 'size', 'bits', 'times', 'bound', 'header', 'error', 'test'),
    list(sections.values()),
    [
      f'experts {experts}, base {base}',
      'size: density, rank, or budget in bits; bits: stored an entry, without '
      'the header; times: below 16 bits; bound: bits over the entropy of the '
      'symbols; header: bits an entry; error: relative; test: accuracy of the '
      'restored experts, %; ±: standard deviation over seeds.',
      *verdicts.lines(summary['claims'], factor=100),
    ],
  )


def draw(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws error and accuracy against bits."""
  fig, ((left, right),) = canvas.grid(12, 4.8, 1, 2)
  rows = summary['rows']
  for codec, (name, colour) in STYLES.items():
    for ax, field, factor in (
      (left, 'error', 1),
      (right, 'accuracy', 100),
    ):
      bits, values = _curve(rows, codec, field)
      if not len(bits):
        continue
      mean, deviation = np.transpose([spreads.spread(v) for v in values])
      canvas.curve(
        ax,
        bits,
        factor * mean,
        factor * deviation,
        colour=colour,
        label=name,
        ls='--' if codec == 'svd' else '-',
      )
  places = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16)
  for ax in (left, right):
    canvas.log_ticks(ax, places, base=2)
    ax.set_xlabel('bits an entry, without the header')
  left.set_ylabel('relative error')
  right.set_ylabel('test accuracy of restored experts (%)')
  experts = 100 * float(np.mean(summary['experts']))
  canvas.level(right, 'experts', experts, above=True)
  canvas.legend(right, 'codec')
  canvas.save(fig, path)
