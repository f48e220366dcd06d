"""How far are the representations of two seeds from each other?

Networks that differ in their seed alone are stitched: the first blocks of one,
an affine map, the last blocks of another. The penalty is what that costs in
test error. It is measured for all pairs of positions, with a map in closed
form, and on the diagonal also with a map that was trained further on labels.

Two controls say what a small penalty means. The first blocks of a random
network must cost little early, where any features will do, and much later. The
first blocks of the same network must cost nothing. Least squares residual and
CKA of the same pairs stand beside: a stitch may work between features that are
not alike.

  python -m experiments.stitch_penalty \
    --config=configs/stitch_penalty.py:digits

Hardware, minutes and the numbers to expect are in the config's docstring.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from experiments import _main
from experiments._run import console, records
from experiments._shared import batches, nets, nets_training, one_task
from experiments._stitch_penalty import report
from wsl import models, stitch, train, tree, types

NAME = 'stitch_penalty'

# Top, bottom and random bottom.
Cut = tuple[stitch.Segmented, stitch.Segmented, stitch.Segmented]


class Setting(NamedTuple):
  """What every stage needs.

  Attributes:
    config: the run's.
    images: normalised images and labels.
    module: the Flax module of all networks.
  """

  config: ml_collections.ConfigDict
  images: one_task.Images
  module: Any


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains networks, stitches each on the next, and writes what came out.

  Args:
    config: see ``configs/stitch_penalty.py``.
    workdir: folder of this run; parts that are finished there are not
      computed again.

  Returns:
    The record, as in ``record.json``.

  Raises:
    ValueError: naming what is wrong in the config, before anything is trained.
    FileNotFoundError: if the data is missing.
  """
  out = records.Run(NAME, config, workdir)
  if record := out.finished():
    return record
  setting = load(config)
  console.say(describe(setting))
  out.begin()

  # Train networks; draw as many that know nothing.
  networks = out.arrays('networks', lambda: trained(setting))
  random = jax.vmap(net(setting).init)(keys(setting, 1))

  # Stitch each on the next, in closed form and trained.
  results = []
  for s in range(config.networks):
    bottom, top = s, (s + 1) % config.networks
    cut = (
      cut_network(setting, networks, top),
      cut_network(setting, networks, bottom),
      cut_network(setting, random, bottom),
    )
    compute = functools.partial(measure, setting, cut, s)
    results.append(out.values(f'stitch.{s}', compute))

  # Write figures, a table and the record.
  summary = report.summarise(results)
  report.draw_matrices(out.path / 'matrix.png', summary)
  report.draw_diagonal(out.path / 'diagonal.png', summary)
  for row in summary['diagonal']:
    out.log(**row)
  report.show(f'{NAME} {config.variant}', summary)
  return out.finish({**summary, 'results': results})


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data, and checks the config."""
  module = nets.find(config.model)
  images = one_task.load(config)
  count = len(images.train[1])
  nets_training.check(config.training, count)
  one_task.check_sizes(
    {
      'networks': (config.networks, 2, None),
      'fit.batch_size': (config.fit.batch_size, 1, config.held_out),
      'adapters.steps': (config.adapters.steps, 1, None),
      'adapters.batch_size': (config.adapters.batch_size, 1, count),
      'evaluation.batch_size': (config.evaluation.batch_size, 1, None),
    }
  )
  stitch.fit(jnp.zeros((2, 1)), jnp.zeros((2, 1)), kind=config.kind)
  return Setting(config, images, module(**config.model.arguments))


def describe(setting: Setting) -> str:
  """Returns one line: the networks, their training, and the data."""
  config, images = setting.config, setting.images
  shapes = jax.eval_shape(net(setting).init, jax.random.key(0))
  return (
    f'{config.networks} {config.model.module} of '
    f'{sum(tree.sizes(shapes).values()):,} parameters; {len(images.train[1])} '
    f'training, {len(images.test[1])} test images; '
    f'{nets_training.describe(config.training)}'
  )


def net(setting: Setting) -> nets.Net:
  """Returns the network as functions of its parameters."""
  return nets.build(setting.module, setting.images.train[0][:1])


def keys(setting: Setting, stage: int) -> types.PRNGKey:
  """Returns a key for each network, different in every stage."""
  key = jax.random.fold_in(jax.random.key(setting.config.seed), stage)
  return jax.random.split(key, setting.config.networks)


def trained(setting: Setting) -> types.Params:
  """Returns the networks, ``[S, ...]``."""
  config = setting.config.training
  return nets_training.networks(
    net(setting), config, keys(setting, 0), setting.images.train
  )


def cut_network(
  setting: Setting, networks: types.Params, index: int
) -> stitch.Segmented:
  """Returns one network of several, cut between its blocks."""
  one = jax.tree.map(lambda x: x[index], networks)
  return stitch.Segmented(*models.segments(setting.module, one))


def measure(setting: Setting, networks: Cut, stage: int) -> dict[str, Any]:
  """Measures the penalty of one pair, in closed form and trained.

  Args:
    setting: what every stage needs.
    networks: top, bottom and random bottom.
    stage: which pair this is.

  Returns:
    ``closed`` for all pairs of positions, ``trained`` for the diagonal: dicts
    of lists like ``stitch.Penalty``.
  """
  config, images = setting.config, setting.images
  examples = batches.cut(images.held_out, config.fit.batch_size)
  tests = batches.cut(images.test, config.evaluation.batch_size)
  optimizer = optax.adam(
    optax.cosine_decay_schedule(
      config.adapters.learning_rate, config.adapters.steps
    )
  )
  diagonal = [(i, i) for i in range(networks[0].depth + 1)]
  with console.progress(f'stitch {stage}', 4) as tick:

    def tune(
      bottom: stitch.Segmented, top: stitch.Segmented, adapters: Any
    ) -> Any:
      state, losses = train.advance(
        jax.tree_util.Partial(stitch.penalty_loss, (bottom, top)),
        train.start(adapters, optimizer=optimizer),
        images.train,
        optimizer=optimizer,
        steps=config.adapters.steps,
        batch_size=config.adapters.batch_size,
        key=keys(setting, 2)[stage],
      )
      tick(f'adapters trained to a loss of {losses[-1] / len(diagonal):.3f}')
      return state.params

    closed = stitch.penalty(*networks, examples, tests, kind=config.kind)
    tick(f'{len(closed.pairs)} pairs in closed form')
    tuned = stitch.penalty(
      *networks, examples, tests, kind=config.kind, pairs=diagonal, tune=tune
    )
  return {'closed': _lists(closed), 'trained': _lists(tuned)}


def _lists(found: stitch.Penalty) -> dict[str, Any]:
  parts = ('bottom', 'random', 'own')
  measured = {
    part: {k: v.tolist() for k, v in getattr(found, part)._asdict().items()}
    for part in parts
  }
  return {'pairs': found.pairs, 'error': found.error, **measured}


if __name__ == '__main__':
  _main.main(NAME, run)
