"""Networks cut from a deep one, before and after a short training."""

from collections.abc import Callable
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._depth_surgery import settings, training
from experiments._run import console
from experiments._shared import side_by_side
from experiments._shared.texts import language
from wsl import stitch, surgery, tree, types


def measure(setting: settings.Setting, deep: types.Params) -> dict[str, Any]:
  """Cuts the networks of all seeds, ``[S, ...]``.

  Returns:
    ``deep``: bits of the whole networks, ``[S]``; ``similarities`` and
    ``gates`` of their blocks; ``kept``: the blocks that each choice keeps; and
    by name ``cut`` and ``trained``: bits before and after the training, with
    ``parameters`` and the ``layers`` that are run one after the other.
  """
  config = setting.config
  seeds = range(config.seeds)
  nets = [settings.network(setting, side_by_side.pick(deep, s)) for s in seeds]
  similarities = [_similarities(setting, net) for net in nets]
  gates = _gates(setting, nets)
  removed = config.depth - config.cuts.keep
  first = surgery.program_of(config.depth, range(config.cuts.keep))
  choices = {
    'crash': [_crash(setting, x) for x in similarities],
    'fold': [surgery.fold(x, remove=removed, group=1) for x in gates],
    'last': [first] * config.seeds,
  }
  if 'best' in config.cuts.methods:
    choices['best'] = _best(setting, nets)
  found: dict[str, Any] = {
    'deep': settings.bits(setting, deep, setting.corpus.test),
    'similarities': [x.tolist() for x in similarities],
    'gates': [x.tolist() for x in gates],
    'kept': {
      name: [[x.sources[0] for x in p.layers] for p in programs]
      for name, programs in choices.items()
    },
  }
  cut = {
    name: [
      surgery.apply_program(net, p).params
      for net, p in zip(nets, programs, strict=True)
    ]
    for name, programs in choices.items()
  }
  fresh = jax.jit(functools.partial(settings.init, setting, config.cuts.keep))
  keys = side_by_side.keys(config.seed, 5, config.seeds)
  cut['scratch'] = [fresh(key) for key in keys]
  tie = functools.partial(surgery.tie, blocks='^blocks/')
  for name in config.cuts.methods:
    if name == 'parallel':
      found[name] = _parallel(setting, nets)
    elif name in cut:
      found[name] = _trained(setting, name, cut[name], config.cuts.keep)
    else:
      program = _shared(setting)[name]
      tied = [tie(net.params, program) for net in nets]
      found[name] = _trained(setting, name, tied, config.depth)
  return found


def _trained(
  setting: settings.Setting, name: str, params: list[Any], layers: int
) -> dict[str, Any]:
  """Measures networks of all seeds before and after the training."""
  config = setting.config
  together = jax.tree.map(lambda *x: jnp.stack(x), *params)
  cut = settings.bits(setting, together, setting.corpus.test)
  after = training.advance(
    setting,
    name,
    together,
    6,
    steps=config.cuts.steps,
    rate=config.cuts.rate,
  )
  return {
    'cut': cut,
    'trained': settings.bits(setting, after, setting.corpus.test),
    'parameters': sum(jnp.size(x) for x in jax.tree.leaves(params[0])),
    'layers': layers,
  }


def _similarities(
  setting: settings.Setting, net: stitch.Segmented
) -> np.ndarray:
  """Returns the similarity of the outputs of adjacent blocks."""
  windows = setting.corpus.validation
  inputs, _ = language.split(
    jnp.asarray(windows.reshape(-1, windows.shape[-1]))
  )
  return surgery.block_similarities(net, [inputs])


def _crash(
  setting: settings.Setting, similarities: np.ndarray
) -> surgery.Program:
  """Returns the program that keeps one block of each cluster."""
  keep = setting.config.cuts.keep
  return surgery.crash(surgery.block_clusters(similarities, clusters=keep))


def _gates(
  setting: settings.Setting, nets: list[stitch.Segmented]
) -> list[np.ndarray]:
  """Trains the gates of the blocks of each network on training text."""
  config, corpus = setting.config, setting.corpus
  rng = np.random.default_rng(config.seed)
  rows = corpus.rows.reshape(-1)
  optimizer = optax.adam(config.cuts.gate_rate)
  batches = [
    language.split(
      jnp.asarray(corpus.train[rng.choice(rows, config.batch_size)])
    )
    for _ in range(config.cuts.gate_steps)
  ]
  found = []
  with console.progress('gates', len(nets)) as tick:
    for net in nets:
      found.append(
        surgery.block_gates(
          net,
          _cross_entropy,
          batches,
          optimizer=optimizer,
          keep=config.cuts.keep / config.depth,
        )
      )
      tick('')
  return found


def _cross_entropy(logits: types.Array, batch: Any) -> types.Array:
  """Returns the loss of a batch (tokens, targets)."""
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, batch[1]
  ).mean()


def _best(
  setting: settings.Setting, nets: list[stitch.Segmented]
) -> list[surgery.Program]:
  """Returns the blocks whose network has the lowest validation loss."""
  config = setting.config
  kept = [*itertools.combinations(range(config.depth), config.cuts.keep)]
  best = []
  for net in nets:
    programs = [surgery.program_of(config.depth, x) for x in kept]
    cut = tree.stack([surgery.apply_program(net, p).params for p in programs])
    losses = settings.bits(setting, cut, setting.corpus.validation)
    best.append(programs[int(np.argmin(losses))])
  return best


def _shared(setting: settings.Setting) -> dict[str, surgery.Program]:
  """Returns programs of full depth and half of the blocks."""
  depth, rank = setting.config.depth, setting.config.cuts.rank
  recursive: Callable[..., surgery.Program] = functools.partial(
    surgery.recursive, depth, loops=2, untied=settings.UNTIED
  )
  return {
    'stepwise': recursive(init='stepwise'),
    'stepwise_rank': recursive(init='stepwise', rank=rank),
    'average': recursive(init='average'),
    'average_rank': recursive(init='average', rank=rank),
    'fold_tied': surgery.fold(
      np.ones(depth), remove=0, group=2, untied=settings.UNTIED
    ),
  }


def _parallel(
  setting: settings.Setting, nets: list[stitch.Segmented]
) -> dict[str, Any]:
  """Measures pairs of blocks that run in parallel, without a training."""
  config = setting.config
  pairs = [(i, i + 2) for i in range(0, config.depth, 2)]
  windows = setting.corpus.test
  tokens, targets = language.split(
    jnp.asarray(windows.reshape(-1, windows.shape[-1]))
  )
  run = jax.jit(
    lambda net: _cross_entropy(stitch.apply(net, tokens), (tokens, targets))
  )
  cut = [
    float(run(surgery.collapse(net, groups=pairs))) / np.log(2) for net in nets
  ]
  size = sum(x.size for x in jax.tree.leaves(nets[0].params))
  return {'cut': cut, 'parameters': size, 'layers': config.depth // 2}
