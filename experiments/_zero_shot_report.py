"""Tables and figures of encoders joined with decoders of others."""

import pathlib
from typing import Any

import ml_collections
import numpy as np

from experiments import _canvas, _console
from wsl import types

STYLES = {
  'relative': ('relative representations', '#1f6fb4'),
  'orthogonal': ('translated by a rotation', '#e8871e'),
  'affine': ('translated by an affine map', '#2a8c4a'),
  'absolute': ('as they are', '#7f7f7f'),
  'shuffled': ('relative, anchors in another order', '#c2559d'),
}
TITLES = {'classes': 'classifiers', 'images': 'autoencoders'}
UNITS = {'classes': 'test accuracy, %', 'images': 'test variance explained, %'}


def summarise(
  config: ml_collections.ConfigDict, results: dict[str, Any]
) -> dict[str, Any]:
  """Puts everything that was measured into rows.

  Args:
    config: the run's.
    results: by objective what ``_zero_shot.measure`` found.

  Returns:
    ``rows``: a dict for each objective, method and group of pairs, its scores
    by number of anchors as ``[mean, standard deviation]`` over replicates, the
    mean over pairs in each; ``claims``: for each objective what should hold,
    whether it does in every replicate, and the differences.
  """
  rows, claims = [], {}
  for objective, found in results.items():
    same = np.asarray(found['same_width'])
    for group, mask in (('same', same), ('other', ~same)):
      for name in STYLES:
        scores = np.asarray(found['methods'][name])[:, mask]
        if mask.any():
          rows.append(
            {
              'objective': objective,
              'width': group,
              'method': name,
              'scores': _columns(scores.mean(1)),
            }
          )
    own = np.asarray(found['relative']).mean(1)
    for name, scores in (('own relative', own), ('own', _own(config, found))):
      rows.append(
        {
          'objective': objective,
          'width': 'its own',
          'method': name,
          'scores': _columns(scores),
        }
      )
    claims[objective] = _claims(found)
  return {'anchors': list(config.anchors), 'rows': rows, 'claims': claims}


def _own(config: ml_collections.ConfigDict, found: dict[str, Any]) -> Any:
  """Returns what own decoders reach, the same for all numbers of anchors."""
  own = np.asarray(found['own']).mean(1)
  return np.repeat(own[:, None], len(config.anchors), 1)


def _claims(found: dict[str, Any]) -> dict[str, Any]:
  """Compares methods at the most anchors, replicate by replicate."""
  last = {
    name: np.asarray(scores)[:, :, -1].mean(1)
    for name, scores in found['methods'].items()
  }
  few = np.asarray(found['methods']['relative'])[:, :, 0].mean(1)
  own = np.asarray(found['own']).mean(1)
  wanted = {
    'relative above absolute': last['relative'] - last['absolute'],
    'relative above shuffled anchors': last['relative'] - last['shuffled'],
    'more anchors help': last['relative'] - few,
    'relative within 0.05 of own decoders': last['relative'] - own + 0.05,
    'relative above a rotation': last['relative'] - last['orthogonal'],
    'relative above an affine map': last['relative'] - last['affine'],
  }
  return {
    claim: {'holds': bool((by > 0).all()), 'by': by.tolist()}
    for claim, by in wanted.items()
  }


def _columns(values: Any) -> list[list[float]]:
  return [_spread(column) for column in np.asarray(values, np.float64).T]


def _spread(values: Any) -> list[float]:
  x = np.asarray(values, np.float64)
  return [float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else 0.0]


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints a table for each objective, and what holds."""
  percent = lambda x: f'{100 * x[0]:.1f} ± {100 * x[1]:.1f}'
  for objective, claims in summary['claims'].items():
    sections: dict[str, list[Any]] = {}
    for row in summary['rows']:
      if row['objective'] == objective:
        name = STYLES.get(row['method'], (row['method'],))[0]
        group = sections.setdefault(row['width'], [])
        group.append((name, row['width'], *map(percent, row['scores'])))
    _console.show_table(
      f'{label}: {TITLES[objective]}',
      ('joined', 'width', *(f'{n} anchors' for n in summary['anchors'])),
      list(sections.values()),
      [
        f'{UNITS[objective]}, mean over pairs; ±: standard deviation over '
        'replicates.',
        '; '.join(
          f'{claim}: {"yes" if found["holds"] else "no"}'
          for claim, found in claims.items()
        ),
      ],
    )


def draw_anchors(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws scores against the number of anchors.

  Args:
    path: the file to write.
    summary: from ``summarise``.
  """
  objectives = list(summary['claims'])
  fig, panels = _canvas.grid(12.5, 4.4 * len(objectives), len(objectives), 2)
  for objective, axes in zip(objectives, panels):
    rows = [row for row in summary['rows'] if row['objective'] == objective]
    for ax, group in zip(axes, ('same', 'other')):
      for row in (row for row in rows if row['width'] == group):
        name, colour = STYLES[row['method']]
        mean, spread = 100 * np.asarray(row['scores']).T
        ax.plot(summary['anchors'], mean, '-o', color=colour, lw=2, label=name)
        ax.fill_between(
          summary['anchors'],
          mean - spread,
          mean + spread,
          color=colour,
          alpha=0.12,
          lw=0,
        )
      own = next(row for row in rows if row['method'] == 'own')
      level = 100 * own['scores'][0][0]
      ax.axhline(level, color=_canvas.INK, lw=1, zorder=1)
      ax.set_ylim(bottom=0, top=102)
      ax.set_xscale('log')
      ax.set_xticks(summary['anchors'], [str(n) for n in summary['anchors']])
      ax.minorticks_off()
      ax.set_title(
        f'{TITLES[objective]} of the {group} width',
        loc='left',
        color=_canvas.INK,
      )
    axes[0].set_ylabel(f'{UNITS[objective]} (below 0 not shown)')
  for ax in panels[-1]:
    ax.set_xlabel('anchors')
  shown = max(panels[0], key=lambda ax: len(ax.get_lines()))
  if shown is panels[0][0]:  # networks of one width alone
    panels[0][1].set_visible(False)
  shown.plot([], [], color=_canvas.INK, lw=1, label='own decoder')
  _canvas.legend(shown, "latents of another's encoder,")
  _canvas.save(fig, path)


def draw_images(path: pathlib.Path, shown: dict[str, types.Array]) -> None:
  """Draws test images, and what decoders make of their latents.

  Args:
    path: the file to write.
    shown: from ``_zero_shot.reconstructions``.
  """
  columns = len(next(iter(shown.values())))
  fig, panels = _canvas.grid(
    1.0 * columns + 3.2, len(shown), len(shown), columns
  )
  first = np.asarray(next(iter(shown.values())))
  low, high = first.min(), first.max()
  for (name, images), axes in zip(shown.items(), panels):
    for ax, image in zip(axes, np.asarray(images)):
      ax.imshow(
        np.clip((image - low) / (high - low), 0, 1).squeeze(), cmap='Greys'
      )
      ax.set_xticks([])
      ax.set_yticks([])
      ax.grid(visible=False)
      ax.spines[['left', 'bottom']].set_visible(False)
    label = STYLES.get(name, (name,))[0]
    label = {'own': 'own decoder'}.get(name, label)
    axes[0].set_ylabel(
      label.replace(', ', ',\n').replace(' by ', '\nby '),
      rotation=0,
      ha='right',
      va='center',
    )
  _canvas.save(fig, path)
