"""Tables of the study, and its claims; ``summary`` is from ``summarise``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments._run import console
from experiments._scale_study import agreement

MB, GB = 1e6, 1e9
# A formula without fitted constants is useful to this factor.
_FACTOR = 2.0


def summarise(
  found: Mapping[int, dict[str, Any]],
  streamed: Sequence[dict[str, Any]],
  paper: Sequence[dict[str, Any]],
  checked: Sequence[dict[str, Any]],
) -> dict[str, Any]:
  """Collects the measurements and judges the claims.

  Args:
    found: from ``measure.on`` for each number of devices.
    streamed: from ``disk.measure``.
    paper: from ``pods.on_paper``.
    checked: from ``pods.compile_all``.

  Returns:
    ``rows`` of all devices, ``machines`` by devices, ``claims``, and the other
    arguments by name.
  """
  rows = [row for part in found.values() for row in part['rows']]
  return {
    'rows': rows,
    'machines': {str(d): part['machine'] for d, part in found.items()},
    'claims': _claims(rows, streamed),
    'disk': list(streamed),
    'pod': list(paper),
    'compiled': list(checked),
  }


def largest(rows: Sequence[dict[str, Any]], devices: int) -> list[Any]:
  """Returns the rows of the largest model on a number of devices."""
  mine = [row for row in rows if row['devices'] == devices]
  most = max(row['leaves'] for row in mine)
  return [row for row in mine if row['leaves'] == most]


def ratio(row: dict[str, Any]) -> float | None:
  """Returns the measured over the predicted time, None if not measured."""
  return row['seconds'] and row['seconds'] / row['predicted']


def _claims(
  rows: Sequence[dict[str, Any]], streamed: Sequence[dict[str, Any]]
) -> dict[str, Any]:
  """Judges the bytes of programs and files, and the times."""
  claims: dict[str, Any] = {
    f'bytes: {quantity}': claim
    for quantity, claim in agreement.judge(rows).items()
  }
  off = [
    abs(row['bytes_in']['plan'] / row['bytes_in']['formula'] - 1)
    for row in streamed
  ]
  claims['bytes: read from files'] = {
    'worst': max(off),
    'tolerance': 0.05,
    'holds': max(off) <= 0.05,
  }
  for devices in sorted({row['devices'] for row in rows}):
    mine = {r['operation']: ratio(r) for r in largest(rows, devices)}
    known = {name: x for name, x in mine.items() if x}
    if not known:
      continue
    factors = {name: max(x, 1 / x) for name, x in known.items()}
    within = sum(x <= _FACTOR for x in factors.values())
    claims[f'time within a factor of two, {devices} devices'] = {
      'worst': max(factors.values()),
      'operation': max(factors, key=lambda name: factors[name]),
      'median': float(np.median(list(known.values()))),
      'within': within,
      'of': len(factors),
      'holds': within == len(factors),
    }
  return claims


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints all tables."""
  devices = sorted({row['devices'] for row in summary['rows']})
  for d in devices:
    _show_devices(label, largest(summary['rows'], d), d)
  _show_machines(label, summary['machines'])
  _show_disk(label, summary['disk'])
  _show_pod(label, summary['pod'])
  if summary['compiled']:
    _show_compiled(label, summary['compiled'])
  _show_claims(label, summary['claims'])


def _show_devices(label: str, rows: Sequence[dict[str, Any]], d: int) -> None:
  """Prints formula and count, prediction and measurement, of one mesh."""
  peak = lambda cost: sum(
    cost[key] for key in ('arguments', 'results', 'temporaries')
  )
  table = []
  for row in rows:
    expected, counted = row['expected'], row['counted']
    both = lambda a, b: (f'{a / MB:.3f}', f'{b / MB:.3f}')
    measured = row['seconds']
    table.append(
      (
        row['operation'],
        *both(expected['memory'], counted['memory']),
        *both(expected['link'], counted['link']),
        *both(peak(expected), peak(counted)),
        f'{1e3 * row["predicted"]:.2f}',
        f'{1e3 * measured:.2f}' if measured else '',
        f'{ratio(row):.2f}' if measured else '',
        row['bound'],
      )
    )
  console.show_table(
    f'{label}: {rows[0]["parameters"] / 1e6:.2f} M parameters, {d} devices',
    (
      *('operation', 'read, written', 'counted', 'sent', 'counted', 'held'),
      *('counted', 'predicted', 'measured', 'ratio', 'bound by'),
    ),
    [table],
    [
      'MB for each device, by formula and as counted in the compiled program '
      '(the body of a loop once); milliseconds of a call.'
    ],
  )


def _show_machines(label: str, machines: Mapping[str, Any]) -> None:
  """Prints the measured rates of one device."""
  names = list(next(iter(machines.values())))
  console.show_table(
    f'{label}: rates of one device',
    ('devices', *names),
    [[(d, *(f'{m[n]:.2g}' for n in names)) for d, m in machines.items()]],
    ['each second, measured while all devices work; call, exchange: seconds.'],
  )


def _show_disk(label: str, rows: Sequence[dict[str, Any]]) -> None:
  """Prints the merges from files."""
  console.show_table(
    f'{label}: merges streamed from files',
    (
      'merge',
      'read, MB',
      'plan',
      'written',
      'held',
      'predicted, s',
      'measured',
    ),
    [
      [
        (
          row['operation'],
          f'{row["bytes_in"]["formula"] / MB:.1f}',
          f'{row["bytes_in"]["plan"] / MB:.1f}',
          f'{row["bytes_out"]["written"] / MB:.1f}',
          f'{row["peak"] / MB:.1f}',
          f'{row["predicted"]:.2f}' if row['predicted'] else '',
          f'{row["seconds"]:.2f}',
        )
        for row in rows
      ]
    ],
    ['predicted by checkpoint.plan(probe=True), which measures the disk.'],
  )


def _show_pod(label: str, rows: Sequence[dict[str, Any]]) -> None:
  """Prints the predictions for a pod."""
  models = list(dict.fromkeys(row['model'] for row in rows))
  by = {(row['operation'], row['model']): row for row in rows}
  names = list(dict.fromkeys(row['operation'] for row in rows))
  table = []
  for name in names:
    cells = [name]
    for model in models:
      pod, chip = by[name, model]['pod'], by[name, model]['chip']
      fits = 'yes' if chip['fits'] else 'no'
      cells += [
        f'{1e3 * pod["seconds"]:.3g}',
        pod['bound'],
        f'{pod["gigabytes"]:.2f}',
        fits,
      ]
    table.append(cells)
  heads = ('ms', 'by', 'GB', 'on one')
  console.show_table(
    f'{label}: on a pod, on paper',
    ('operation', *(f'{m}: {h}' for m in models for h in heads)),
    [table],
    [
      'bfloat16, rates of a data sheet: times are lower bounds; by: the '
      'bound; GB: held by a chip of the pod; on one: does one chip hold all.'
    ],
  )


def _show_compiled(label: str, rows: Sequence[dict[str, Any]]) -> None:
  """Prints what the compiler of the pod allocates and exchanges."""
  keys = ('arguments', 'results', 'temporaries', 'sent')
  console.show_table(
    f'{label}: compiled for the pod',
    ('operation', *(f'{k}, {s}' for k in keys for s in ('formula', 'found'))),
    [
      [
        (
          row['operation'],
          *(
            f'{row[source][k]:.2f}'
            for k in keys
            for source in ('formula', 'compiled')
          ),
        )
        for row in rows
      ]
    ],
    ['in shares: the bytes of one model on one chip.'],
  )


def _show_claims(label: str, claims: Mapping[str, Any]) -> None:
  """Prints which claims hold."""
  console.show_table(
    f'{label}: claims',
    ('claim', 'worst', 'tolerance', 'where', 'holds'),
    [
      [
        (
          name,
          f'{claim["worst"]:.3f}',
          f'{claim.get("tolerance", _FACTOR):g}',
          f'{claim.get("operation", "")}'
          + (f', {claim["devices"]} devices' if 'devices' in claim else '')
          + (
            f'; {claim["within"]} of {claim["of"]} hold'
            if 'within' in claim
            else ''
          ),
          'yes' if claim['holds'] else 'no',
        )
        for name, claim in claims.items()
      ]
    ],
    ['bytes: relative differences; times: the factor between both.'],
  )
