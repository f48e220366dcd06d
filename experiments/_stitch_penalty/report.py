"""Table and figures of stitching penalties."""

import pathlib
from typing import Any

import numpy as np

from experiments._run import canvas, console, spreads

PARTS = {'bottom': 'other seed', 'random': 'random', 'own': 'itself'}
_COLOURS = {'bottom': '#1f6fb4', 'random': '#c2559d', 'own': '#2c8a3d'}
# Reported by Bansal et al. on CIFAR-10, in points of test error.
SMALL, LARGE, EARLY = 5.0, 20.0, 0.2


def summarise(results: list[dict[str, Any]]) -> dict[str, Any]:
  """Summarises the measurements of all pairs of networks.

  Args:
    results: ``closed`` and ``trained`` of each pair, as lists.

  Returns:
    ``error`` of the tops in per cent; ``diagonal``, a dict for each position,
    numbers as ``[mean, standard deviation]``, penalties in points;
    ``matrix``, means by position of the bottom and of the top; ``facts``,
    whether known facts about larger networks hold here.
  """
  pairs = [tuple(pair) for pair in results[0]['closed']['pairs']]
  shape = (1 + max(p for p, _ in pairs), 1 + max(q for _, q in pairs))
  matrix = {
    part: {
      key: _stack(results, 'closed', part, key).mean(0).reshape(shape).tolist()
      for key in ('penalty', 'residual', 'cka')
    }
    for part in ('bottom', 'random')
  }
  diagonal = _diagonal(results, pairs)
  errors = [100 * one['closed']['error'] for one in results]
  return {
    'error': spreads.spread(errors),
    'diagonal': diagonal,
    'matrix': matrix,
    'facts': _facts(diagonal),
  }


def _stack(
  results: list[dict[str, Any]], way: str, part: str, key: str
) -> np.ndarray:
  """Returns ``[S, P]``; penalties in points."""
  values = np.asarray([one[way][part][key] for one in results])
  return 100 * values if key == 'penalty' else values


def _diagonal(
  results: list[dict[str, Any]], pairs: list[tuple[int, int]]
) -> list[dict[str, Any]]:
  """Returns the spreads of all measures at each position."""
  rows: list[dict[str, Any]] = []
  measures = ('penalty', 'residual', 'cka')
  for i, (p, _) in enumerate(results[0]['trained']['pairs']):
    row: dict[str, Any] = {'position': p}
    at = pairs.index((p, p))
    for part in PARTS:
      closed, residual, cka = (
        spreads.spread(_stack(results, 'closed', part, key)[:, at])
        for key in measures
      )
      tuned = _stack(results, 'trained', part, 'penalty')[:, i]
      row[part] = {
        'closed': closed,
        'trained': spreads.spread(tuned),
        'residual': residual,
        'cka': cka,
      }
    rows.append(row)
  return rows


def _facts(diagonal: list[dict[str, Any]]) -> dict[str, Any]:
  """Returns for both kinds of fit whether the known facts hold."""
  depth = diagonal[-1]['position']
  early = [row for row in diagonal if row['position'] <= EARLY * depth]
  found = {}
  for way in ('closed', 'trained'):
    other = max(row['bottom'][way][0] for row in diagonal)
    first = max(row['random'][way][0] for row in early)
    last = max(row['random'][way][0] for row in diagonal)
    own = max(abs(row['own'][way][0]) for row in diagonal)
    found[way] = {
      'other seed small': _fact(other, other <= SMALL),
      'random small early': _fact(first, first <= SMALL),
      'random large deep': _fact(last, last >= LARGE),
      'itself none': _fact(own, own <= (0.3 if way == 'closed' else SMALL)),
    }
  return found


def _fact(value: float, holds: bool) -> dict[str, Any]:
  return {'points': value, 'holds': bool(holds)}


def show(title: str, summary: dict[str, Any]) -> None:
  """Prints the diagonal and the verdicts on the facts."""
  columns = ['after block']
  columns += [
    f'{PARTS[part]}{note}' for part in PARTS for note in ('', ', fit')
  ]
  columns += ['residual', '(random)', 'CKA', '(random)']
  rows = []
  for row in summary['diagonal']:
    line = [str(row['position'])]
    for part in PARTS:
      line += [spreads.text(row[part][way]) for way in ('closed', 'trained')]
    for key in ('residual', 'cka'):
      line += [f'{row[part][key][0]:.2f}' for part in ('bottom', 'random')]
    rows.append(line)
  notes = [
    f'penalties in points of test error; error of the tops: '
    f'{spreads.text(summary["error"])} %; fit: adapters trained further'
  ]
  for way, facts in summary['facts'].items():
    for name, fact in facts.items():
      word = 'holds' if fact['holds'] else 'does not hold'
      notes.append(f'{way}: {name} {word} ({fact["points"]:.1f} points)')
  console.show_table(title, columns, [rows], notes)


def draw_matrices(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws penalties and CKA of all pairs of positions."""
  fig, panels = canvas.grid(12.5, 4.3, 1, 3)
  matrix = summary['matrix']
  titles = (
    ('bottom', 'penalty', 'penalty, bottom of another seed'),
    ('random', 'penalty', 'penalty, random bottom'),
    ('bottom', 'cka', 'CKA, another seed'),
  )
  most = max(np.max(matrix[part]['penalty']) for part in matrix)
  for ax, (part, key, title) in zip(panels[0], titles):
    values = np.asarray(matrix[part][key])
    limits = (0, most) if key == 'penalty' else (0, 1)
    colours = 'magma_r' if key == 'penalty' else 'viridis'
    image = ax.imshow(
      values, origin='lower', cmap=colours, vmin=limits[0], vmax=limits[1]
    )
    middle = sum(limits) / 2
    for (p, q), value in np.ndenumerate(values):
      text = f'{value:.0f}' if key == 'penalty' else f'{value:.2f}'
      text = '0' if text == '-0' else text.removeprefix('0') or '0'
      dark = (value > middle) == (key == 'penalty')
      colour = 'white' if dark else 'black'
      ax.text(q, p, text, ha='center', va='center', color=colour, fontsize=9)
    ax.grid(False)
    ax.set_xticks(range(values.shape[1]))
    ax.set_yticks(range(values.shape[0]))
    canvas.heading(ax, title)
    ax.set_xlabel('enters the top after block')
    fig.colorbar(image, ax=ax, fraction=0.046)
  panels[0][0].set_ylabel('leaves the bottom after block')
  canvas.save(fig, path)


def draw_diagonal(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws penalties along the diagonal with both controls."""
  fig, panels = canvas.grid(12.5, 4.6, 1, 2)
  rows = summary['diagonal']
  x = [row['position'] for row in rows]
  for part, label in PARTS.items():
    for way, dash in (('closed', '-'), ('trained', (0, (4, 2)))):
      mean, deviation = np.asarray([row[part][way] for row in rows]).T
      name = f'{label}, {"closed form" if way == "closed" else "trained"}'
      canvas.curve(
        *(panels[0][0], x, mean, deviation),
        colour=_COLOURS[part],
        ls=dash,
        marker='',
        alpha=0.15,
        label=name,
      )
  for part in ('bottom', 'random'):
    for key, dash in (('residual', '-'), ('cka', (0, (1, 1)))):
      mean = [row[part][key][0] for row in rows]
      name = f'{PARTS[part]}, {"CKA" if key == "cka" else key}'
      panels[0][1].plot(
        x, mean, color=_COLOURS[part], ls=dash, lw=2, label=name
      )
  panels[0][0].axhline(0, color=canvas.INK, lw=1)
  panels[0][0].set_ylabel('stitching penalty, points')
  panels[0][1].set_ylim(0, 1.02)
  panels[0][1].set_ylabel('residual of least squares, CKA')
  for ax in panels[0]:
    ax.set_xlabel('stitched after block')
    ax.set_xticks(x)
    ax.legend(frameon=False, fontsize=10, labelcolor=canvas.INK)
  canvas.save(fig, path)
