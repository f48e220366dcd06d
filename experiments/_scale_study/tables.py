"""Tables of the study; ``summary`` is from ``report.summarise``."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments._run import console
from experiments._scale_study import report

MB = 1e6


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints all tables."""
  devices = sorted({row['devices'] for row in summary['rows']})
  for d in devices:
    _show_devices(label, report.largest(summary['rows'], d), d)
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
        f'{1e3 * row["predicted"]:.2f}' if row['bound'] else '',
        f'{1e3 * measured:.2f}' if measured else '',
        f'{report.ratio(row):.2f}' if measured else '',
        row['bound'] or '',
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
          f'{claim.get("tolerance", report.FACTOR):g}',
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
