"""Operations of ``scale``, ``landscape`` and ``train``."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from tests.operations import cutting, inputs, landscapes
from wsl import landscape, scale, train, tree

BY = ('leaf', 'entry', ('channel', -1), ('random', 4))


def parts(dtype: Any) -> list[inputs.Table]:
  return [
    _composed(dtype), _layers(dtype), _learning(dtype), _landscape(dtype),
    _training(dtype), *cutting.parts(dtype), *landscapes.parts(dtype),
  ]  # fmt: skip


def _compose(coefs: Any, base: Any, bank: Any) -> Any:
  return scale.compose(base, bank, coefs)


def _stacked(dtype: Any) -> tuple[Any, list[Any]]:
  """Returns two stacked layers, and two models of them."""
  draw = lambda seed, *shape: inputs.normal(dtype, *shape, seed=seed)
  base = {'w': draw(7, 2, 4, 6), 'b': draw(8, 2, 6)}
  return base, [jax.tree.map(lambda x, s=s: s * x, base) for s in (0.5, 2.0)]


def _composed(dtype: Any) -> inputs.Table:
  base, models = _stacked(dtype)
  banks = {
    'a stack': scale.bank(base, models),
    'a bfloat16 stack': scale.bank(base, models, dtype=jnp.bfloat16),
    'rows': scale.bank(base, [*models, dict.fromkeys(base)]),
  }
  found: inputs.Table = {}

  def add(label: str, by: Any, base: Any, bank: scale.Bank) -> None:
    coefs = scale.init(bank, by=by, value=0.3, key=inputs.KEY)
    name = f'scale.compose of {label}, {by}'
    found[name] = (_compose, (coefs, base, bank))
    found[f'{name}, differentiated'] = (
      inputs.slope(_compose), (coefs, base, bank)
    )  # fmt: skip

  for label, bank in banks.items():
    for by in BY:
      add(label, by, base, bank)
  factor = lambda seed: scale.LowRank(
    inputs.normal(dtype, 2, 4, 3, seed=seed),
    inputs.normal(dtype, 3, 6, seed=seed),
  )
  one = {'w': base['w']}
  low = scale.bank(one, [{'w': factor(1)}, {'w': factor(2)}])
  for by in ('leaf', ('random', 4)):
    add('low rank', by, one, low)
  return found


def _layers(dtype: Any) -> inputs.Table:
  base, models = _stacked(dtype)
  bank = scale.bank(base, models)
  narrow = scale.bank(base, models, dtype=jnp.bfloat16)
  start = lambda by: scale.init(bank, by=by, value=0.3, key=inputs.KEY)
  h = jnp.ones(3, tree.wide_dtype(base['w']))

  def scan(coefs: Any, base: Any, bank: Any) -> Any:
    block = lambda p, h: h + (p['w'].sum() * p['b'].sum()).astype(h.dtype)
    return scale.scan(block, h, base, bank, coefs)

  by_layer = start(('channel', 0))
  return {
    'scale.combine': (scale.combine, (bank, start('leaf'))),
    'scale.pull_back': (scale.pull_back, (bank, base, start('leaf'))),
    'scale.pull_back, random cells': (
      scale.pull_back, (bank, base, start(('random', 4)))
    ),
    'scale.scan': (scan, (by_layer, base, bank)),
    'scale.scan of a bfloat16 stack': (scan, (by_layer, base, narrow)),
    'scale.scan, differentiated': (inputs.slope(scan), (by_layer, base, bank)),
    'scale.softmax': (scale.softmax, (start('leaf'),)),
    'scale.box': (scale.box, (start('leaf'),)),
    'scale.shrinkage': (lambda c: scale.shrinkage(c, p=2), (start('leaf'),)),
  }  # fmt: skip


def _learning(dtype: Any) -> inputs.Table:
  """Returns the gradient of ``scale.fit``, linear models and heads."""
  base, *models = [inputs.params(dtype, i) for i in range(1 + inputs.T)]
  bank = scale.bank(base, models)
  coefs = scale.init(bank, by='leaf', value=0.3)
  x = inputs.normal(dtype, inputs.N, 4, seed=3)
  logits = inputs.normal(dtype, inputs.N, inputs.M, seed=4)
  delta = jax.tree.map(jnp.subtract, models[0], base)
  head = scale.tip_adapter(x, inputs.LABELS, classes=inputs.M)
  probe, _ = scale.linear_probe(x, inputs.LABELS, logits)
  objective = scale.supervised(inputs.mlp)

  def gradient(coefs: Any, base: Any, bank: Any, batch: Any) -> Any:
    loss = lambda c: objective(_compose(c, base, bank), batch, inputs.KEY)
    return jax.value_and_grad(loss)(coefs)

  batch = (x, jnp.asarray(inputs.LABELS))
  entropy = scale.entropy(inputs.mlp)
  negation = scale.negation(inputs.mlp, inputs.mlp)
  multi_task = scale.multi_task([objective, entropy])
  move = lambda key, x: x + jax.random.normal(key, x.shape, x.dtype)
  ufm = scale.ufm(inputs.mlp, weak=lambda key, x: x, strong=move)
  views = scale.Views(x, x, batch[1], jnp.asarray(0.5, jnp.float32))
  return {
    'scale.supervised, of composed': (gradient, (coefs, base, bank, batch)),
    'scale.entropy': (lambda p, x: entropy(p, x, inputs.KEY), (base, x)),
    'scale.negation': (
      lambda p, b: negation(p, (b, b), inputs.KEY), (base, batch)
    ),
    'scale.multi_task': (
      lambda p, b: multi_task(p, (b, b[0]), inputs.KEY), (base, batch)
    ),
    'scale.ufm': (lambda p, v: ufm(p, v, inputs.KEY), (base, views)),
    'scale.linear_model': (
      lambda b, p, x: scale.linear_model(inputs.mlp, b)(p, x),
      (base, models[0], x),
    ),
    'scale.linearise': (
      lambda b, d, x: scale.linearise(inputs.mlp, b)(d, x), (base, delta, x)
    ),
    'scale.tip_logits': (
      lambda x, z: scale.tip_logits(head, x, z), (x, logits)
    ),
    'scale.probe_logits': (
      lambda x, z: scale.probe_logits(probe, x, z), (x, logits)
    ),
  }  # fmt: skip


def _landscape(dtype: Any) -> inputs.Table:
  a, b, c = (inputs.params(dtype, i) for i in (1, 2, 3))
  x = inputs.normal(dtype, inputs.N, 4, seed=3)
  loss = lambda x: lambda p: jnp.mean(jnp.square(inputs.mlp(p, x)))
  return {
    'landscape.interpolate': (
      lambda a, b, t: landscape.interpolate(a, b, t), (a, b, 0.3)
    ),
    'landscape.barrier': (
      lambda a, b, x: landscape.barrier(loss(x), a, b, points=3).above_mean,
      (a, b, x),
    ),
    'landscape.heights': (
      lambda v: landscape.heights(v).above_chord, ({'loss': x},)
    ),
    'landscape.path': (
      lambda a, b, x: landscape.path(loss(x), a, b, points=3).values, (a, b, x)
    ),
    'landscape.l2_reduction': (landscape.l2_reduction, (a, b, c)),
    'landscape.singular_alignment': (landscape.singular_alignment, (a, b)),
    'landscape.variance_ratio': (
      landscape.variance_ratio, jax.tree.map(jnp.square, (a, b, c))
    ),
  }  # fmt: skip


def _training(dtype: Any) -> inputs.Table:
  start = inputs.params(dtype, 1)
  x = inputs.normal(dtype, inputs.N, 4, seed=3)
  data = (x, jnp.asarray(inputs.LABELS))

  def loss(p: Any, batch: Any, key: Any) -> Any:
    logits = inputs.mlp(p, batch[0])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
    return jnp.mean(losses)

  evaluate = lambda p, d: train.evaluate(inputs.mlp, p, d, batch_size=4)
  found: inputs.Table = {'train.evaluate': (evaluate, (start, data))}
  for name, optimizer in {
    'sgd': optax.sgd(0.1, momentum=0.9),
    'adamw': train.adamw(0.01, steps=4),
    'lbfgs': optax.lbfgs(),
  }.items():

    def advance(params: Any, data: Any, optimizer: Any = optimizer) -> Any:
      state = train.start(params, optimizer=optimizer)
      return train.advance(
        loss, state, data,
        optimizer=optimizer, steps=2, batch_size=4, key=inputs.KEY,
      )  # fmt: skip

    found[f'train.advance, {name}'] = (advance, (start, data))
  return found
