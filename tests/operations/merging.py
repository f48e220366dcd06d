"""Operations of trees, deltas, adapters, merges, searches and codecs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.merge import battery
from tests.operations import inputs
from wsl import adapters, codecs, deltas, merge, search, tree


def parts(dtype: Any) -> list[inputs.Table]:
  return [_trees(dtype), _packs(dtype), _methods(dtype), _searches(dtype)]


def _trees(dtype: Any) -> inputs.Table:
  base, *models = [inputs.params(dtype, i) for i in range(1 + inputs.T)]
  stacks = deltas.stack(base, models)
  delta = jax.tree.map(lambda x: x[0], stacks)
  apply = lambda b, d, c: deltas.apply(b, d, coef=c)
  one = {'w': _factors(dtype)}
  pair = adapters.stack([{'w': _factors(dtype)} for _ in range(2)])
  return {
    **_adapters(dtype, base),
    'adapters.lego': (lambda x: adapters.lego(x, rank=1), (pair,)),
    'adapters.overlap': (adapters.overlap, (pair,)),
    'deltas.stack': (deltas.stack, (base, models)),
    'deltas.apply': (apply, (base, delta, 0.4)),
    'deltas.dense': (deltas.dense, (_factors(dtype),)),
    'deltas.apply, factors': (apply, (deltas.dense(one), one, 0.4)),
    'adapters.compress': (lambda x: adapters.compress(x, rank=1), (one,)),
    'tree.norm': (tree.norm, (base,)),
    'tree.norm, ord=1': (lambda x: tree.norm(x, ord=1), (base,)),
    'tree.kth_magnitude': (lambda x: tree.kth_magnitude(x, 5), (stacks,)),
    'tree.bernoulli': (lambda p: tree.bernoulli(inputs.KEY, p, (5,)), (0.3,)),
  }


def _adapters(dtype: Any, base: Any) -> inputs.Table:
  """Returns the forward passes of LoRAs, and mixtures of shards."""
  mos = functools.partial(
    adapters.mos, rank=1, budget=1, key=inputs.KEY, leaves='a'
  )
  mixture = mos(base)
  x, router = inputs.normal(dtype, 4, 5), inputs.normal(dtype, 2, 5)
  smora = functools.partial(adapters.smora_gates, active=1)
  mora = functools.partial(adapters.mora_gates, active=1)
  one, gates = _factors(dtype), jnp.ones(2, dtype)
  return {
    'adapters.project': (adapters.project, (x, one)),
    'adapters.gate': (adapters.gate, (one, gates)),
    'adapters.smora_gates': (smora, (x, router)),
    'adapters.mora_gates': (mora, (x, one)),
    'adapters.balance': (adapters.balance, (gates, gates[None])),
    'adapters.expand': (adapters.expand, (mixture.pools, mixture.tables)),
  }


def _packs(dtype: Any) -> inputs.Table:
  """Returns the codecs that are decoded on the device."""
  x = {'w': inputs.normal(dtype, 6, 5)}
  family = merge.tall_masks({'w': inputs.normal(dtype, 2, 6, 5)}, threshold=0.4)
  packs = {
    'bitstack': codecs.bitstack(x, blocks=2, rank=2),
    'skillpack': codecs.skillpack(x, rank=2),
    'masks': codecs.masks(family),
  }
  rows = {
    f'codecs.decode, {k}': (codecs.decode, (p,)) for k, p in packs.items()
  }
  return rows | {'codecs.masks': (codecs.masks, (family,))}


def _factors(dtype: Any) -> adapters.Factors:
  """Returns factors of a linear map [out, in]."""
  draw = np.random.default_rng(0).standard_normal
  a, b = (jnp.asarray(draw(shape), dtype) for shape in ((2, 5), (3, 2)))
  view = tree.Matrix(rows=(1,), columns=(0,))
  return adapters.Factors(a, b, 0.5, (3, 5), view)


def _searches(dtype: Any) -> inputs.Table:
  models = {'w': inputs.normal(dtype, 2, 3, 4)}
  score = lambda params: jnp.abs(params['w']).sum(1)
  archive = search.archive(models, jax.vmap(score)(models), size=3)
  a, b = ({'w': models['w'][i]} for i in range(2))
  return {
    'search.archive': (
      lambda x, s: search.archive(x, s, size=3), (models, archive.scores[:2])
    ),
    'search.niche_shares': (search.niche_shares, (archive.scores,)),
    'search.crossover': (
      lambda a, b: search.crossover(a, b, split=5, weight=0.3), (a, b)
    ),
    'search.m2n2': (
      lambda x: search.m2n2(score, x, steps=2, key=inputs.KEY), (archive,)
    ),
    'search.pbt': (
      lambda x, h: search.pbt(
        lambda x, h, key: x * h.astype(x.dtype), jnp.max, x, h,
        rounds=2, key=inputs.KEY,
      ),
      (models['w'], archive.scores[:2, 0]),
    ),
    'search.merge_factors': (
      lambda *x: search.merge_factors(x, keep=[0.5, 1.0], coef=[1.0, -0.5]),
      (_factors(dtype), _factors(dtype)),
    ),
  }  # fmt: skip


def _methods(dtype: Any) -> inputs.Table:
  """Returns every row of the contract table, and some compositions."""

  def cast(x: Any) -> Any:
    is_float = hasattr(x, 'dtype') and jnp.issubdtype(x.dtype, np.floating)
    return x.astype(dtype) if is_float else x

  found: inputs.Table = {}
  for name, row in battery.METHODS.items():
    given = battery.stacked(inputs.T), row.sides(inputs.T)
    call = functools.partial(row.call, **battery.first(row))
    name = name if '.' in name else f'merge.{name}'
    found[name] = (call, jax.tree.map(cast, given))
  pair = adapters.stack([{'w': _factors(dtype)} for _ in range(2)])
  rows, tasks = inputs.normal(dtype, 6, 3), jnp.arange(6) % 2
  router = merge.Router(rows[:3, :2], rows[0, :2])
  spectral = ('tsv', 'iso_c', 'iso_cts')
  dare, ties = (found[f'merge.{n}'][0] for n in ('dare', 'ties'))
  given = found['merge.tsv'][1]
  return (
    found
    | {
      'merge.opcm': (lambda x: merge.fold(merge.opcm(), x), given[:1]),
      'merge.cat': (lambda x: merge.cat(x, weights=[1, -2]), (pair,)),
      'merge.knots, factors': (
        lambda x: deltas.dense(merge.knots(x, method=merge.magmax)),
        (pair,),
      ),
      'merge.passthrough': (
        lambda x: merge.passthrough(x, scale=0.5),
        given[:1],
      ),
      'merge.fit_router': (
        lambda x, t: merge.fit_router(x, t, count=2),
        (rows, tasks),
      ),
      'merge.route': (merge.route, (router, rows)),
      'merge.dare, summed': (lambda x, s: merge.sum(dare(x, s)), given),
      'merge.ties, differentiated': (inputs.slope(ties), given),
    }
    | {
      f'merge.{n}, differentiated': (
        inputs.slope(found[f'merge.{n}'][0]),
        given,
      )
      for n in spectral
    }
  )
