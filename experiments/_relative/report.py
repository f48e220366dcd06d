"""Tables and figures of encoders joined to other decoders."""

import pathlib
from typing import Any

import ml_collections
import numpy as np

from experiments._run import canvas, console, spreads
from wsl import types

STYLES = {
  'relative': ('relative representations', '#1f6fb4'),
  'orthogonal': ('translated by a rotation', '#e8871e'),
  'affine': ('translated by an affine map', '#2a8c4a'),
  'absolute': ('as they are', '#7f7f7f'),
  'shuffled': ('relative, anchors in another order', '#c2559d'),
}
TITLES = {'classes': 'classifiers', 'images': 'autoencoders'}
GROUPS = {'same': 'of one width', 'other': 'of two widths'}
UNITS = {'classes': 'test accuracy, %', 'images': 'test variance explained, %'}


def summarise(
  config: ml_collections.ConfigDict, results: dict[str, Any]
) -> dict[str, Any]:
  """Summarises the measurements.

  Args:
    config: of the run.
    results: by objective, from ``zero_shot.measure``.

  Returns:
    ``rows``: a dict for each objective, method and group of pairs, its scores
    by number of anchors as ``[mean, standard deviation]`` over replicates, the
    mean over pairs in each; ``claims``: for each objective and claim, whether
    it holds in every replicate, and the differences.
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
              'scores': spreads.columns(scores.mean(1)),
            }
          )
    own = np.asarray(found['relative']).mean(1)
    for name, scores in (('own relative', own), ('own', _own(config, found))):
      rows.append(
        {
          'objective': objective,
          'width': 'its own',
          'method': name,
          'scores': spreads.columns(scores),
        }
      )
    claims[objective] = _claims(found)
  return {'anchors': list(config.anchors), 'rows': rows, 'claims': claims}


def _own(config: ml_collections.ConfigDict, found: dict[str, Any]) -> Any:
  """Returns the scores of own decoders, repeated for all numbers of anchors."""
  own = np.asarray(found['own']).mean(1)
  return np.repeat(own[:, None], len(config.anchors), 1)


def _claims(found: dict[str, Any]) -> dict[str, Any]:
  """Compares methods, replicate by replicate."""
  few, last = (
    {
      name: np.asarray(scores)[:, :, level].mean(1)
      for name, scores in found['methods'].items()
    }
    for level in (0, -1)
  )
  ours, own = last['relative'], np.asarray(found['own']).mean(1)
  wanted = {
    'relative above absolute': ours - last['absolute'],
    'relative above shuffled anchors': ours - last['shuffled'],
    'more anchors help': ours - few['relative'],
    'relative within 0.05 of own decoders': ours - own + 0.05,
  }
  for name, title in (
    ('orthogonal', 'a rotation'),
    ('affine', 'an affine map'),
  ):
    wanted |= {
      f'relative above {title}, most anchors': ours - last[name],
      f'relative above {title}, fewest': few['relative'] - few[name],
    }
  return {
    claim: {'holds': bool((by > 0).all()), 'by': by.tolist()}
    for claim, by in wanted.items()
  }


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints a table for each objective, with the verdicts on the claims."""
  for objective, claims in summary['claims'].items():
    sections: dict[str, list[Any]] = {}
    for row in summary['rows']:
      if row['objective'] == objective:
        name = STYLES.get(row['method'], (row['method'],))[0]
        group = sections.setdefault(row['width'], [])
        group.append((name, row['width'], *map(spreads.percent, row['scores'])))
    console.show_table(
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
  """Draws scores against the number of anchors."""
  rows = summary['rows']
  objectives = list(summary['claims'])
  groups = [g for g in GROUPS if any(row['width'] == g for row in rows)]
  fig, panels = canvas.grid(
    5.2 * len(groups) + 2.8, 4.2 * len(objectives), len(objectives), len(groups)
  )
  for objective, axes in zip(objectives, panels):
    own = next(
      row['scores'][0][0]
      for row in rows
      if row['objective'] == objective and row['method'] == 'own'
    )
    for group, ax in zip(groups, axes):
      for row in rows:
        if (row['objective'], row['width']) == (objective, group):
          _draw_curve(ax, summary['anchors'], row)
      ax.axhline(100 * own, color=canvas.INK, lw=1, label='own decoder')
      ax.set_ylim(bottom=0, top=102)
      canvas.log_ticks(ax, summary['anchors'])
      ax.set_title(
        f'{TITLES[objective]}, {GROUPS[group]}', loc='left', color=canvas.INK
      )
    axes[0].set_ylabel(f'{UNITS[objective]} (below 0 not shown)')
  for ax in panels[-1]:
    ax.set_xlabel('anchors')
  canvas.legend(panels[0][-1], 'latents of another encoder')
  canvas.save(fig, path)


def _draw_curve(ax: Any, anchors: list[int], row: dict[str, Any]) -> None:
  """Draws the scores of one method."""
  name, colour = STYLES[row['method']]
  mean, spread = 100 * np.asarray(row['scores']).T
  canvas.curve(ax, anchors, mean, spread, colour=colour, label=name)


def draw_images(path: pathlib.Path, shown: dict[str, types.Array]) -> None:
  """Draws test images and their reconstructions.

  Args:
    path: the file to write.
    shown: from ``zero_shot.reconstructions``.
  """
  columns = len(next(iter(shown.values())))
  fig, panels = canvas.grid(
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
  canvas.save(fig, path)
