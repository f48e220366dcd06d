"""How different are the representations of two seeds?

  python -m experiments.stitch_penalty \

Networks that differ only in their seed are stitched: the first blocks of one,
an affine map, the last blocks of another. The penalty is the increase in test
error. It is measured for all pairs of positions with a map in closed form, and
on the diagonal also with a map that was trained further on labels.

Two controls calibrate a small penalty. The first blocks of a random network
must cost little early, where any features suffice, and much later. The first
blocks of the same network must cost nothing. The residual of least squares and
CKA are reported for the same pairs: a stitch can be accurate although the
features are not similar.
    --config=configs/stitch_penalty.py:digits
"""

import functools
from typing import Any

import jax
import optax

from experiments import _main
from experiments._run import console, experiment, records
from experiments._shared import batches
from experiments._stitch_penalty import report, settings
from wsl import stitch, train

NAME = 'stitch_penalty'

# Top, bottom and random bottom.
Networks = tuple[stitch.Segmented, stitch.Segmented, stitch.Segmented]


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains networks, and stitches each on the next."""
  config = setting.config

  # Train networks, and draw untrained ones.
  networks = out.arrays('networks', lambda: settings.trained(setting))
  random = settings.random(setting)

  # Stitch each on the next, in closed form and trained.
  results = []
  for s in range(config.networks):
    following = (s + 1) % config.networks
    top = settings.segmented(setting, networks, following)
    bottom = settings.segmented(setting, networks, s)
    control = settings.segmented(setting, random, s)
    compute = functools.partial(measure, setting, (top, bottom, control), s)
    results.append(out.values(f'stitch.{s}', compute))

  # Write figures, a table and the record.
  summary = report.summarise(results)
  report.draw_matrices(out.path / 'matrix.png', summary)
  report.draw_diagonal(out.path / 'diagonal.png', summary)
  out.log(*summary['diagonal'])
  report.show(out.title, summary)
  return out.finish({**summary, 'results': results})


def measure(
  setting: settings.Setting, networks: Networks, stage: int
) -> dict[str, Any]:
  """Measures the penalty of one pair, in closed form and trained.

  Args:
    setting: config, data and model.
    networks: top, bottom and random bottom.
    stage: the index of the pair.

  Returns:
    ``closed`` for all pairs of positions, ``trained`` for the diagonal: dicts
    of lists like ``stitch.Penalty``.
  """
  config, images = setting.config, setting.images
  examples = batches.cut(images.held_out, config.fit.batch_size)
  tests = batches.cut(images.test, config.evaluation.batch_size)
  diagonal = [(i, i) for i in range(networks[0].depth + 1)]
  with console.progress(f'stitch {stage}', 4) as tick:

    def tune(
      bottom: stitch.Segmented, top: stitch.Segmented, adapters: Any
    ) -> Any:
      found, loss = tuned(setting, bottom, top, adapters, stage)
      tick(f'adapters trained to a loss of {loss / len(diagonal):.3f}')
      return found

    closed = stitch.penalty(*networks, examples, tests, kind=config.kind)
    tick(f'{len(closed.pairs)} pairs in closed form')
    trained = stitch.penalty(
      *networks, examples, tests, kind=config.kind, pairs=diagonal, tune=tune
    )
  return {'closed': _lists(closed), 'trained': _lists(trained)}


def tuned(
  setting: settings.Setting,
  bottom: stitch.Segmented,
  top: stitch.Segmented,
  adapters: Any,
  stage: int,
) -> tuple[Any, float]:
  """Trains adapters further on labels; returns them and the last loss."""
  config = setting.config.adapters
  optimizer = optax.adam(
    optax.cosine_decay_schedule(config.learning_rate, config.steps)
  )
  state, losses = train.advance(
    jax.tree_util.Partial(stitch.penalty_loss, (bottom, top)),
    train.start(adapters, optimizer=optimizer),
    setting.images.train,
    optimizer=optimizer,
    steps=config.steps,
    batch_size=config.batch_size,
    key=settings.keys(setting, 2)[stage],
  )
  return state.params, float(losses[-1])


def _lists(found: stitch.Penalty) -> dict[str, Any]:
  """Converts a penalty to dicts of lists."""
  parts = ('bottom', 'random', 'own')
  measured = {
    part: {k: v.tolist() for k, v in getattr(found, part)._asdict().items()}
    for part in parts
  }
  return {'pairs': found.pairs, 'error': found.error, **measured}


if __name__ == '__main__':
  _main.main(NAME, run)
