"""One encoder, many tasks: which merge of the experts keeps most?

The protocol of the CLIP-suite papers at a size that a CPU can train. A base
encoder and one head for each task are trained on a small mixture of all tasks;
the heads then stay as they are. Each expert fine-tunes the encoder on its own
task. A merge sees encoders only. Its coefficient and arguments are chosen by
the mean accuracy over tasks on validation images, pooled over the seeds: one
choice for all of them. The test images are looked at once, with that choice.

  python -m experiments.merge_vision --config=configs/merge_vision.py:digits

Hardware, minutes and the numbers to expect are in the config's docstring.
"""

from collections.abc import Callable, Sequence
import functools
import json
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments import (
  _calls,
  _console,
  _figures,
  _main,
  _methods,
  _record,
  _summary,
  _tasks,
)
from wsl import (
  checkpoint,
  data,
  deltas,
  merge,
  models,
  stats,
  train,
  tree,
  types,
)

NAME = 'merge_vision'
SEGMENTS = 10  # of a training run, between reports
BATCH = 500  # images in memory at once in an evaluation


class Lab(NamedTuple):
  """What every stage needs: S seeds, T tasks.

  Attributes:
    config: the run's.
    tasks: images and labels.
    methods: the lines of the table.
    init: maps a key to the encoder's parameters.
    encode: maps (encoder, images) to features ``[B, W]``.
    classify: maps ({'encoder', 'head'}, images) to logits ``[B, C]``.
  """

  config: ml_collections.ConfigDict
  tasks: _tasks.Tasks
  methods: list[_methods.Method]
  init: Callable[[types.PRNGKey], types.Params]
  encode: Callable[[types.Params, types.Array], types.Array]
  classify: Callable[[types.Params, types.Array], types.Array]


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains, merges, measures, and writes what came out.

  Args:
    config: see ``configs/merge_vision.py``.
    workdir: folder of this run; parts that are finished there are not
      computed again.

  Returns:
    The record, as in ``record.json``.

  Raises:
    ValueError: naming what is wrong in the config, before anything is trained.
    FileNotFoundError: if the data is missing.
  """
  out = _record.Run(NAME, config, workdir)
  if record := out.finished():
    return record
  lab = prepare(config)
  out.begin()

  # Train: a base, an expert for each task, one model for all tasks.
  start = out.arrays('base', lambda: pretrain(lab))
  base, heads = start['encoder'], start['heads']
  experts = out.arrays('experts', lambda: finetune(lab, base, heads))
  joint = out.arrays('joint', lambda: finetune_jointly(lab, base, heads))
  bounds = out.values(
    'bounds', lambda: measure_bounds(lab, base, experts, joint, heads)
  )

  # Merge: every method, every candidate, every coefficient.
  stack = jax.tree.map(lambda x, b: x - b[:, None], experts, base)
  supplied = {
    name: out.arrays(
      name,
      lambda name=name: measure(lab, name, experts, heads),
      like=abstract(lab, name, (config.seeds, len(lab.tasks.names))),
    )
    for name in asked(lab)
  }
  results = {
    method.name: out.values(
      method.name,
      lambda method=method: sweep(lab, method, base, stack, heads, supplied),
    )
    for method in lab.methods
  }

  # Write: a checkpoint, figures, a table, the record.
  summary = _summary.summarise(lab.tasks.names, bounds, results)
  winner = _summary.winner(summary)
  save_merged(lab, out, winner, base, stack, heads, supplied)
  _figures.sweep(out.path / 'sweep.png', summary)
  _figures.tasks(out.path / 'tasks.png', summary)
  _summary.show(f'{NAME} {config.variant}', summary)
  return out.finish(summary)


def prepare(config: ml_collections.ConfigDict) -> Lab:
  """Reads the data and checks the whole config, before anything is trained."""
  for name in ('seeds', 'at_once'):
    if config[name] < 1:
      raise ValueError(f'{name}={config[name]}: expected 1 or more')
  methods = _methods.parse(config.methods, config.arguments, config.coefs)
  if config.model not in config.models:
    hint = tree.nearest(config.model, list(config.models))
    raise ValueError(
      f"model: no '{config.model}'{hint}: there are {', '.join(config.models)}"
    )
  chosen, where = config.models[config.model], f'models.{config.model}'
  module = _calls.find(chosen.module, [models], where=where)
  _calls.check(module, chosen.arguments, where=f'{where}.arguments')
  model = module(**chosen.arguments)
  tasks = _tasks.load(config.data, config.tasks, validation=config.validation)
  image = jnp.zeros((1, *tasks.train.x.shape[2:]), jnp.float32)

  def init(key: types.PRNGKey) -> types.Params:
    return model.init(key, image)['params']

  def encode(encoder: types.Params, x: types.Array) -> types.Array:
    x = (jnp.asarray(x, jnp.float32) - tasks.mean) / tasks.std
    return model.apply({'params': encoder}, x)

  def classify(params: types.Params, x: types.Array) -> types.Array:
    features = encode(params['encoder'], x)
    return features @ params['head']['kernel'] + params['head']['bias'][None]

  lab = Lab(config, tasks, methods, init, encode, classify)
  shapes = jax.eval_shape(init, jax.random.key(0))
  count = len(tasks.names)
  supplied = {name: abstract(lab, name, (count,)) for name in asked(lab)}
  supplied['key'] = jax.eval_shape(jax.random.key, 0)
  for method in methods:
    _methods.check(method, shapes, count, supplied)
  size = sum(tree.sizes(shapes).values())
  _console.say(
    f'{count} tasks x {config.seeds} seeds, {tasks.train.y.shape[1]} training '
    f'images each; {chosen.module} encoder of {size:,} parameters; '
    f'{len(methods)} merging methods'
  )
  return lab


# ---------------------------------------------------------------------- train


def pretrain(lab: Lab) -> types.Params:
  """Trains encoder and heads on a few images of every task."""
  config, tasks = lab.config.base, lab.tasks
  few = jax.tree.map(lambda x: x[:, : config.examples], tasks.train)

  def start(key: types.PRNGKey) -> types.Params:
    keys = jax.random.split(key)
    encoder = lab.init(keys[0])
    image = jnp.zeros((1, *tasks.train.x.shape[2:]), jnp.float32)
    width = jax.eval_shape(lab.encode, encoder, image).shape[-1]
    shape = (len(tasks.names), width, tasks.classes)
    kernel = jax.random.normal(keys[1], shape, jnp.float32) / width**0.5
    heads = {'kernel': kernel, 'bias': jnp.zeros_like(kernel[:, 0])}
    return {'encoder': encoder, 'heads': heads}

  def loss(
    _: None, params: types.Params, batch: Any, key: types.PRNGKey
  ) -> types.Array:
    return mixture_loss(lab, params['heads'], params['encoder'], batch, key)

  keys = seed_keys(lab, 0)
  return train_all(
    lab,
    'base',
    loss,
    (None, jax.lax.map(start, keys), keys),
    mixture(few),
    steps=config.steps,
    batch_size=config.batch_size,
    rate=config.learning_rate,
  )


def finetune(lab: Lab, base: types.Params, heads: types.Params) -> types.Params:
  """Trains the encoder on each task alone; leaves ``[S, T, ...]``."""
  config, tasks = lab.config.experts, lab.tasks
  seeds, count = lab.config.seeds, len(tasks.names)

  def loss(
    head: types.Params, encoder: types.Params, batch: Any, key: types.PRNGKey
  ) -> types.Array:
    logits = lab.classify({'encoder': encoder, 'head': head}, batch.x)
    return cross_entropy(logits, batch.y)

  flat = lambda x: x.reshape(-1, *x.shape[2:])
  every = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), base)
  keys = jax.vmap(lambda key: jax.random.split(key, count))(seed_keys(lab, 1))
  trained = train_all(
    lab,
    'experts',
    loss,
    (jax.tree.map(flat, heads), every, flat(keys)),
    tasks.train,
    lambda data, run: jax.tree.map(lambda x: x[run % count], data),
    steps=expert_steps(lab),
    batch_size=config.batch_size,
    rate=lab.config.models[lab.config.model].expert_rate,
  )
  return jax.tree.map(lambda x: x.reshape(seeds, count, *x.shape[1:]), trained)


def finetune_jointly(
  lab: Lab, base: types.Params, heads: types.Params
) -> types.Params:
  """Trains the encoder on all tasks, as many steps as all experts together."""
  return train_all(
    lab,
    'joint',
    functools.partial(mixture_loss, lab),
    (heads, base, seed_keys(lab, 2)),
    mixture(lab.tasks.train),
    steps=expert_steps(lab) * len(lab.tasks.names),
    batch_size=lab.config.experts.batch_size,
    rate=lab.config.models[lab.config.model].expert_rate,
  )


def train_all(
  lab: Lab,
  label: str,
  loss: Callable[..., types.Array],
  runs: tuple[types.Tree, types.Params, types.PRNGKey],
  data: types.Tree,
  pick: Callable[[types.Tree, types.Array], types.Tree] = lambda data, _: data,
  *,
  steps: int,
  batch_size: int,
  rate: float,
) -> types.Params:
  """Trains R runs, ``at_once`` of them side by side, and shows how they fare.

  Args:
    lab: what every stage needs.
    label: the stage.
    loss: maps (bound, params, batch, key) to a scalar.
    runs: (bound, params, key) of each run, leaves ``[R, ...]``.
    data: examples of all runs.
    pick: maps (data, number of a run) to the examples of that run.
    steps: about how many; rounded up to whole segments.
    batch_size: examples in a batch.
    rate: peak learning rate.

  Returns:
    The trained parameters, leaves ``[R, ...]``.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  bound, params, keys = runs
  segment = -(-steps // SEGMENTS)
  optimizer = train.adamw(rate, steps=segment * SEGMENTS)

  @jax.jit
  def advance_all(
    bound: types.Tree, states: train.State, keys: types.PRNGKey, data: Any
  ) -> tuple[train.State, types.Array]:
    def advance(operands: Any) -> tuple[train.State, types.Array]:
      run, bound, state, key = operands
      return train.advance(
        jax.tree_util.Partial(loss, bound),
        state,
        pick(data, run),
        optimizer=optimizer,
        steps=segment,
        batch_size=batch_size,
        key=key,
      )

    operands = (jnp.arange(len(keys)), bound, states, keys)
    return jax.lax.map(advance, operands, batch_size=lab.config.at_once)

  data = jax.tree.map(jnp.asarray, data)
  states = jax.vmap(lambda p: train.start(p, optimizer=optimizer))(params)
  with _console.progress(label, SEGMENTS) as tick:
    for part in range(SEGMENTS):
      states, losses = advance_all(bound, states, keys, data)
      loss_now = float(jnp.mean(losses))
      if not np.isfinite(loss_now):
        raise FloatingPointError(
          f'{label}: the loss is {loss_now} before step {segment * (part + 1)}:'
          f' take a learning rate below {rate}'
        )
      tick(f'loss {loss_now:.3f}')
  return states.params


def mixture(split: data.Split) -> tuple[types.Array, types.Array, types.Array]:
  """Joins the tasks: (images, labels, number of the task), ``[T N, ...]``."""
  x, y = jnp.asarray(split.x), jnp.asarray(split.y)
  task = jnp.repeat(jnp.arange(y.shape[0], dtype=y.dtype), y.shape[1])
  return x.reshape(-1, *x.shape[2:]), y.reshape(-1), task


def mixture_loss(
  lab: Lab,
  heads: types.Params,
  encoder: types.Params,
  batch: tuple[types.Array, types.Array, types.Array],
  key: types.PRNGKey,
) -> types.Array:
  """Returns the loss of examples that each have their own task's head."""
  del key
  x, y, task = batch
  features = lab.encode(encoder, x)
  logits = jnp.einsum('bw,twc->btc', features, heads['kernel'])
  logits = logits + heads['bias'][None]
  own = jnp.take_along_axis(logits, task[:, None, None], axis=1)[:, 0]
  return cross_entropy(own, y)


def cross_entropy(logits: types.Array, labels: types.Array) -> types.Array:
  """Returns the mean cross-entropy in nats."""
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return jnp.mean(losses)


def expert_steps(lab: Lab) -> int:
  """Returns the optimizer steps of one expert."""
  config = lab.config.experts
  return config.epochs * (lab.tasks.train.y.shape[1] // config.batch_size)


def seed_keys(lab: Lab, stage: int) -> types.PRNGKey:
  """Returns a key for each seed, ``[S]``, different in every stage."""
  key = jax.random.fold_in(jax.random.key(0), stage)
  seeds = jnp.arange(lab.config.seeds, dtype=jnp.uint32)
  return jax.vmap(functools.partial(jax.random.fold_in, key))(seeds)


# ----------------------------------------------------------------------- merge


def asked(lab: Lab) -> list[str]:
  """Returns the statistics that some method asks for."""
  needed = {name for method in lab.methods for name in method.statistics}
  return [name for name in _methods.STATISTICS if name in needed]


def statistic(
  lab: Lab, name: str, params: types.Params, x: types.Array
) -> types.Tree:
  """Computes one statistic of one expert from images without labels."""
  measures = {'fishers': stats.fisher, 'grams': stats.gram}
  return measures[name](lab.classify, params, [x])['encoder']


def abstract(lab: Lab, name: str, lead: tuple[int, ...]) -> types.Tree:
  """Returns the shapes of a statistic, stacked along the axes ``lead``."""
  image = jnp.zeros((1, *lab.tasks.train.x.shape[2:]), jnp.float32)

  def one(key: types.PRNGKey) -> types.Tree:
    encoder = lab.init(key)
    width = lab.encode(encoder, image).shape[-1]
    head = {
      'kernel': jnp.zeros((width, lab.tasks.classes), jnp.float32),
      'bias': jnp.zeros(lab.tasks.classes, jnp.float32),
    }
    return statistic(lab, name, {'encoder': encoder, 'head': head}, image)

  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype),
    jax.eval_shape(one, jax.random.key(0)),
  )


def measure(
  lab: Lab, name: str, experts: types.Params, heads: types.Params
) -> types.Tree:
  """Computes a statistic of every expert on its task; ``[S, T, ...]``."""
  seeds, count = lab.config.seeds, len(lab.tasks.names)
  compute = jax.jit(functools.partial(statistic, lab, name))
  found = []
  with _console.progress(name, seeds * count) as tick:
    for s, t in np.ndindex(seeds, count):
      params = jax.tree.map(
        lambda x, s=s, t=t: x[s, t], {'encoder': experts, 'head': heads}
      )
      x = lab.tasks.train.x[t, : lab.config.statistics.examples]
      found.append(jax.block_until_ready(compute(params, jnp.asarray(x))))
      tick('')
  return jax.tree.map(
    lambda x: x.reshape(seeds, count, *x.shape[1:]), tree.stack(found)
  )


def sweep(
  lab: Lab,
  method: _methods.Method,
  base: types.Params,
  stack: types.Deltas,
  heads: types.Params,
  supplied: dict[str, types.Tree],
) -> dict[str, Any]:
  """Merges with every candidate, chooses on validation, measures on test."""
  tasks, coefs = lab.tasks, method.coefs
  merged, seconds, scores = [], [], []
  with _console.progress(method.name, len(method.candidates)) as tick:
    for arguments in method.candidates:
      result, took = merge_seeds(lab, method, arguments, base, stack, supplied)
      score = accuracies(lab, base, result, heads, tasks.validation, coefs)
      merged.append(result)
      seconds.append(took)
      scores.append(score)
      best = max(score.mean((1, 2)).max() for score in scores)
      tick(f'validation {100 * best:.1f} %')
  family = _methods.is_family(merged[0])
  validation = np.stack(scores)
  picks = choose(validation, family=family)
  chosen, test = np.zeros((2, *validation.shape[2:]))
  for c, i in sorted(set(picks)):
    found = accuracies(
      lab, base, merged[c], heads, tasks.test, coefs[i : i + 1]
    )
    mine = [t for t, pick in enumerate(picks) if pick == (c, i)]
    chosen[:, mine], test[:, mine] = (
      validation[c, i][:, mine],
      found[0][:, mine],
    )
  first = picks[0]
  return {
    'family': family,
    'statistics': method.statistics,
    'arguments': method.candidates[first[0]],
    'coef': coefs[first[1]],
    'coefs': coefs,
    'curve': validation[first[0]].mean((1, 2)).tolist(),
    'validation': chosen.tolist(),
    'test': test.tolist(),
    'merge_seconds': seconds[first[0]],
  }


def choose(validation: np.ndarray, *, family: bool) -> list[tuple[int, int]]:
  """Returns the best (candidate, coefficient) for each task.

  Args:
    validation: accuracies ``[candidates, coefficients, S, T]``.
    family: whether each task may have its own; else all have the same.

  Returns:
    T pairs.
  """
  by_task = validation.mean(2)
  if not family:
    by_task = np.broadcast_to(by_task.mean(2, keepdims=True), by_task.shape)
  flat = by_task.reshape(-1, by_task.shape[2]).argmax(0)
  rows, columns = np.unravel_index(flat, by_task.shape[:2])
  return list(zip(rows.tolist(), columns.tolist()))


def merge_seeds(
  lab: Lab,
  method: _methods.Method,
  arguments: dict[str, dict[str, Any]],
  base: types.Params,
  stack: types.Deltas,
  supplied: dict[str, types.Tree],
) -> tuple[Any, float]:
  """Merges the experts of each seed; says how long one merge takes, warm."""
  merged, times = [], []
  keys = seed_keys(lab, 3)
  for s in (0, *range(lab.config.seeds)):  # the first time compiles
    operands = jax.block_until_ready(
      jax.tree.map(lambda x, s=s: x[s], (base, stack, supplied))
    )
    operands[2]['key'] = keys[s]
    begin = time.perf_counter()
    result = jax.block_until_ready(_methods.apply(method, arguments, *operands))
    times.append(time.perf_counter() - begin)
    merged.append(result)
  return tree.stack(merged[1:]), float(np.median(times[1:]))


# --------------------------------------------------------------------- measure


def measure_bounds(
  lab: Lab,
  base: types.Params,
  experts: types.Params,
  joint: types.Params,
  heads: types.Params,
) -> dict[str, Any]:
  """Returns the accuracies ``[S, T]`` of what is not a merge."""
  difference = jax.tree.map(jnp.subtract, joint, base)
  own = Experts(jax.tree.map(lambda x, b: x - b[:, None], experts, base))
  found: dict[str, Any] = {'base': {}, 'experts': {}, 'joint': {}}
  for part in ('validation', 'test'):
    split = getattr(lab.tasks, part)
    both = accuracies(lab, base, difference, heads, split, (0.0, 1.0))
    found['base'][part], found['joint'][part] = both.tolist()
    alone = accuracies(lab, base, own, heads, split, (1.0,))
    found['experts'][part] = alone[0].tolist()
  return found


class Experts(NamedTuple):
  """A family of T models: the experts themselves, leaves ``[T, ...]``."""

  stack: types.Deltas


def accuracies(
  lab: Lab,
  base: types.Params,
  merged: Any,
  heads: types.Params,
  split: data.Split,
  coefs: Sequence[float],
) -> np.ndarray:
  """Measures every coefficient, seed and task in one compiled program.

  Args:
    lab: what every stage needs.
    base: leaves ``[S, ...]``.
    merged: a delta ``[S, ...]`` for all tasks, or a family.
    heads: ``[S, T, ...]``.
    split: images and labels, ``[T, N, ...]``.
    coefs: L coefficients.

  Returns:
    Accuracies ``[L, S, T]``.
  """
  return np.asarray(
    _accuracies(
      lab.classify,
      lab.config.at_once,
      base,
      merged,
      heads,
      jax.tree.map(jnp.asarray, split),
      jnp.asarray(coefs, jnp.float32),
    ),
    np.float64,
  )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _accuracies(
  classify: Callable[..., types.Array],
  at_once: int,
  base: types.Params,
  merged: Any,
  heads: types.Params,
  split: data.Split,
  coefs: types.Array,
) -> types.Array:
  def of_task(operands: Any, coef: types.Array, base: Any, merged: Any) -> Any:
    task, head, split = operands
    encoder = deltas.apply(base, member(merged, task), coef=coef)
    logits = jax.tree_util.Partial(
      lambda head, encoder, x: classify({'encoder': encoder, 'head': head}, x),
      head,
    )
    return train.evaluate(logits, encoder, split, batch_size=BATCH).accuracy

  def of_seed(operands: Any, coef: types.Array) -> types.Array:
    base, merged, heads = operands
    fn = functools.partial(of_task, coef=coef, base=base, merged=merged)
    tasks = jnp.arange(split.y.shape[0])
    return jax.lax.map(fn, (tasks, heads, split))

  def of_coef(coef: types.Array) -> types.Array:
    fn = functools.partial(of_seed, coef=coef)
    return jax.lax.map(fn, (base, merged, heads), batch_size=at_once)

  return jax.lax.map(of_coef, coefs)


def member(merged: Any, task: types.Array) -> types.Delta:
  """Returns the delta for one task: a family's member, or the one for all."""
  if isinstance(merged, Experts):
    return jax.tree.map(lambda x: x[task], merged.stack)
  if _methods.is_family(merged):
    return merge.materialize(merged, task)
  return merged


def save_merged(
  lab: Lab,
  out: _record.Run,
  winner: dict[str, Any],
  base: types.Params,
  stack: types.Deltas,
  heads: types.Params,
  supplied: dict[str, types.Tree],
) -> None:
  """Saves the winner's encoder with all heads, of its best seed."""
  method = next(m for m in lab.methods if m.name == winner['method'])
  merged, _ = merge_seeds(
    lab, method, winner['arguments'], base, stack, supplied
  )
  row = lambda x: x[winner['seed']]
  encoder = deltas.apply(
    jax.tree.map(row, base), jax.tree.map(row, merged), coef=winner['coef']
  )
  notes = {**winner, 'experiment': NAME, 'tasks': list(lab.tasks.names)}
  checkpoint.save(
    out.path / 'merged.safetensors',
    {'encoder': encoder, 'heads': jax.tree.map(row, heads)},
    metadata={k: json.dumps(v) for k, v in notes.items()},
  )


if __name__ == '__main__':
  _main.main(NAME, run)
