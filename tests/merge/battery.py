"""The battery: one row for each public merge, and its data.

To add a method, add a row to ``METHODS``, or to ``NO_ROW`` if it needs more
than a stack. ``contract_test`` applies a dozen tests to every row: T = 1,
permutation of models, zero deltas, dtypes, one trace under jit, vmap over
hyperparameters, gradients, sharding, leaves on demand and a shift of the base.
A row for which a property does not hold gives the reason in ``but``.
"""

from collections.abc import Mapping
import functools
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import merge, scale, tree, types

T = 4
KEY = jax.random.key(7)
# float64, or float32 where the run has JAX's defaults.
FLOAT = jnp.ones(()).dtype
EMPTY: Mapping[str, Any] = MappingProxyType({})
PROMISES = (
  *('identity', 'permutation', 'zero', 'dtype', 'vmap', 'gradient'),
  'base shift',
)
NO_NUMBERS = 'it has no numeric hyperparameter'


class Row(NamedTuple):
  """One public function and its call.

  Attributes:
    call: ``call(deltas, sides, **hyper) -> tree``.
    gives: ``'delta'``, ``'deltas'``, ``'model'`` or ``'family'``.
    hyper: numeric hyperparameters, each with two values.
    identity: hyperparameters at which the merge of one model is that model.
    sides: statistics that depend on the number of models.
    zero: the factor by which a zero delta scales the result: ``zero(T,
      ndim)``.
    but: properties that do not hold, each with its reason.
  """

  call: Any
  gives: str = 'delta'
  hyper: Mapping[str, tuple[float, float]] = EMPTY
  identity: Mapping[str, float] = EMPTY
  sides: Any = lambda models: {}
  zero: Any = lambda models, ndim: 1.0
  but: Mapping[str, str] = EMPTY


def _normal(seed: int, *shape: int) -> np.ndarray:
  """Multiples of 2**-20: sums with such a base are exact."""
  x = np.random.default_rng(seed).normal(size=shape)
  return (np.round(x * 2**20) / 2**20).astype(FLOAT)


def fishers(models: int) -> dict[str, Any]:
  positive = jax.tree.map(lambda x: jnp.abs(x) + 0.1, make(models, seed=5))
  return {'fishers': positive}


def grams(models: int) -> dict[str, Any]:
  def gram(seed: int, d: int, axes: tuple[int, ...]) -> types.Gram:
    x = _normal(seed, models, 1, 3 * d, d)
    matrix = np.einsum('tgni,tgnj->tgij', x, x)
    return types.Gram(jnp.asarray(matrix), jnp.ones(models), axes)

  return {
    'grams': {
      'block_0': {'w': gram(1, 4, (0,))},
      'block_1': {'w': gram(2, 8, (1,)), 'scale': None},
      'step': None,
    }
  }


def _weights(models: int) -> dict[str, Any]:
  return {'weights': jnp.asarray(1.0 + np.arange(models), FLOAT)}


def _metrics(models: int) -> dict[str, Any]:
  return {'metrics': jnp.asarray(1.0 + np.arange(models), FLOAT)}


def _averaged(models: int, ndim: int) -> float:
  return models / (models + 1)


def _dare(x: Any, sides: Any, **hyper: Any) -> Any:
  return merge.dare(x, key=KEY, **hyper)


def _materialize(x: Any, sides: Any, **hyper: Any) -> Any:
  return merge.materialize(merge.tall_masks(x, **hyper), 0)


def _twins(x: Any, sides: Any) -> Any:
  return merge.materialize(merge.twins(x, density=0.5), 0)


def _rmm(x: Any, sides: Any) -> Any:
  return merge.materialize(merge.rmm(x, basis=1, rank=4), 0)


def _emr(x: Any, sides: Any) -> Any:
  return merge.materialize(merge.emr(x), 0)


def _slerp(x: Any, sides: Any, **hyper: Any) -> Any:
  return _ends(merge.slerp)(x, sides, **hyper)


def _slerp_global(x: Any, sides: Any, **hyper: Any) -> Any:
  return _slerp(x, sides, scope='global', **hyper)


def _slerp_scanned(x: Any, sides: Any, **hyper: Any) -> Any:
  return _slerp(x, sides, matrices=LAYERS, **hyper)


def _ends(method: Any) -> Any:
  """Calls a merge of two models on the first and the last."""

  def call(x: Any, sides: Any, **hyper: Any) -> Any:
    ends = [tree.map(_model, x, t=tree.Static(t)) for t in (0, -1)]
    return method(*ends, **hyper)

  return call


def _all_models(method: Any) -> Any:
  """Calls a merge of a list of models."""

  def call(x: Any, sides: Any, **hyper: Any) -> Any:
    models = len(sides['weights'])
    each = [tree.map(_model, x, t=tree.Static(t)) for t in range(models)]
    return method(each, **sides, **hyper)

  return call


def _della(x: Any, sides: Any, **hyper: Any) -> Any:
  return merge.della(x, key=KEY, **hyper)


def _rescale(x: Any, sides: Any, **hyper: Any) -> Any:
  return merge.rescale(merge.trim(x, scope='leaf', **hyper), x)


def _model(x: Any, *, t: int) -> Any:
  return x[t]


def _by_depth(x: Any, sides: Any, **hyper: Any) -> Any:
  return scale.by_depth(x, depth=r'block_(\d+)/', **hyper)


def _with(method: Any, **fixed: Any) -> Any:
  return lambda x, sides, **hyper: method(x, **sides, **fixed, **hyper)


TRIM = {'density': (0.5, 0.25)}
BAND = {'density': (0.5, 0.25), 'outliers': (0.2, 0.1)}
RATE = {'rate': (0.5, 0.25)}
FIXED_MASK = 'a mask belongs to the number of a model'
ARC = 'it joins two models'
SPHERE = 'it averages models on a sphere around the origin'
SPLIT = 'the share of each task falls with T'
# Two blocks of columns each; block_1 is transposed.
LAYERS = {
  'block_0/w': tree.Matrix(rows=(0,), columns=(1,), groups=2),
  'block_1/w': tree.Matrix(rows=(1,), columns=(0,), groups=2),
}
SPECTRUM = 'it flattens the spectrum'

FAMILY = {
  'identity': 'it gives a family: the row of materialize',
  'permutation': 'the masks move with the models',
  'zero': 'a family grows by a mask that is False: see the oracles',
  'dtype': 'masks are bools',
  'gradient': 'masks are bools',
  'base shift': 'a family is not added to a base',
}

METHODS = {
  'sum': Row(_with(merge.sum), but={'vmap': NO_NUMBERS}),
  'mean': Row(_with(merge.mean), zero=_averaged, but={'vmap': NO_NUMBERS}),
  'weighted_mean': Row(
    _with(merge.weighted_mean),
    sides=_weights,
    but={'vmap': 'weights are an operand, see the oracles'},
  ),
  'mean_nonzero': Row(_with(merge.mean_nonzero), but={'vmap': NO_NUMBERS}),
  'trim': Row(
    _with(merge.trim),
    gives='deltas',
    hyper=TRIM,
    identity={'density': 1.0},
  ),
  'breadcrumbs': Row(
    _with(merge.breadcrumbs),
    gives='deltas',
    hyper=BAND,
    identity={'density': 1.0, 'outliers': 0.0},
  ),
  'breadcrumbs/leaf': Row(
    _with(merge.breadcrumbs, scope='leaf'),
    gives='deltas',
    hyper=BAND,
    identity={'density': 1.0, 'outliers': 0.0},
  ),
  'elect_sign': Row(
    _with(merge.elect_sign),
    gives='deltas',
    but={'vmap': NO_NUMBERS},
  ),
  'ties': Row(
    _with(merge.ties),
    hyper=TRIM,
    identity={'density': 1.0},
  ),
  'ties/leaf': Row(
    _with(merge.ties, scope='leaf', reduce='max', dialect='mergekit'),
    hyper=TRIM,
    identity={'density': 1.0},
  ),
  'dare': Row(
    _dare,
    gives='deltas',
    hyper=RATE,
    identity={'rate': 0.0},
    but={'permutation': FIXED_MASK},
  ),
  'tall_masks': Row(
    _with(merge.tall_masks),
    gives='family',
    hyper={'threshold': (0.5, 1.0)},
    but=FAMILY,
  ),
  'emr': Row(
    _with(merge.emr), gives='family', but=FAMILY | {'vmap': NO_NUMBERS}
  ),
  'materialize/emr': Row(
    _emr, but={'permutation': 'it gives one member', 'vmap': NO_NUMBERS}
  ),
  'materialize': Row(
    _materialize,
    hyper={'threshold': (0.5, 1.0)},
    but={'permutation': 'it gives one member'},
  ),
  'twins': Row(
    _twins,
    but={
      'permutation': 'it gives one member',
      'vmap': 'the density sets shapes: it is static',
      'zero': 'the mean, which is shared, falls with T',
    },
  ),
  'rmm': Row(
    _rmm,
    but={
      'permutation': 'it gives one member',
      'vmap': NO_NUMBERS,
      'zero': 'the directions are of centred factors',
      'gradient': 'an SVD of float32 by products is a loop without derivative',
    },
  ),
  'consensus': Row(
    _with(merge.consensus),
    hyper={'threshold': (0.5, 1.0), 'min_tasks': (2, 1)},
    identity={'min_tasks': 1},
  ),
  'fisher': Row(
    _with(merge.fisher, normalize=True),
    sides=fishers,
    hyper={'floor': (0.3, 0.0), 'coefs': (1.0, 2.0)},
    but={'zero': 'a zero delta with a Fisher diagonal is a vote for the base'},
  ),
  'regmean': Row(
    _with(merge.regmean),
    sides=grams,
    hyper={'shrink': (0.9, 0.5), 'coefs': (1.0, 2.0)},
    but={'zero': 'a zero delta with a Gram matrix is a vote for the base'},
  ),
  'tsv': Row(
    _with(merge.tsv),
    but={'vmap': NO_NUMBERS, 'zero': SPLIT},
  ),
  'iso_c': Row(
    _with(merge.iso_c),
    zero=lambda models, ndim: 1.0 if ndim == 2 else _averaged(models, ndim),
    but={'vmap': NO_NUMBERS, 'identity': SPECTRUM},
  ),
  'iso_cts': Row(
    _with(merge.iso_cts),
    but={
      'vmap': 'common sets shapes: it is static',
      'identity': SPECTRUM,
      'zero': SPLIT,
    },
  ),
  'tsv_compress': Row(
    _with(merge.tsv_compress),
    gives='deltas',
    but={'vmap': 'the fraction sets shapes: it is static', 'zero': SPLIT},
  ),
  'wudi': Row(
    _with(merge.wudi, steps=5),
    hyper={'rate': (1e-4, 2e-4)},
    zero=lambda models, ndim: 1.0 if ndim == 2 else _averaged(models, ndim),
  ),
  'doge': Row(
    _with(merge.doge, steps=1, subspace=2, rate=1e-2),
    hyper={'norm': (0.3, 0.6)},
    but={
      'identity': 'it gives matrices a norm, and leaves vectors to the base',
      'zero': SPLIT,
    },
  ),
  'knots': Row(
    _with(functools.partial(merge.knots, method=merge.magmax)),
    zero=lambda models, ndim: 1.0 if ndim == 2 else _averaged(models, ndim),
    but={
      'vmap': NO_NUMBERS,
      'gradient': 'an SVD of float32 by products is a loop without derivative',
    },
  ),
  'localize_and_stitch': Row(
    _with(merge.localize_and_stitch),
    hyper=TRIM,
    identity={'density': 1.0},
  ),
  'tsv/scanned': Row(
    _with(merge.tsv, matrices=LAYERS),
    but={'vmap': NO_NUMBERS, 'zero': SPLIT},
  ),
  'iso_c/scanned': Row(
    _with(merge.iso_c, matrices=LAYERS),
    zero=lambda models, ndim: 1.0 if ndim == 2 else _averaged(models, ndim),
    but={'vmap': NO_NUMBERS, 'identity': SPECTRUM},
  ),
  'slerp/scanned': Row(
    _slerp_scanned,
    gives='model',
    hyper={'t': (0.3, 0.8), 'lerp_above': (1.0, 0.01)},
    but={'permutation': ARC, 'zero': ARC, 'base shift': ARC},
  ),
  'slerp': Row(
    _slerp,
    gives='model',
    hyper={'t': (0.3, 0.8), 'lerp_above': (1.0, 0.01)},
    but={'permutation': ARC, 'zero': ARC, 'base shift': ARC},
  ),
  'slerp/global': Row(
    _slerp_global,
    gives='model',
    hyper={'t': (0.3, 0.8)},
    but={'permutation': ARC, 'zero': ARC, 'base shift': ARC},
  ),
  'nuslerp': Row(
    _ends(merge.nuslerp),
    gives='model',
    hyper={'t': (0.3, 0.8)},
    but={'permutation': ARC, 'zero': ARC, 'base shift': ARC},
  ),
  'nuslerp/rows': Row(
    _ends(functools.partial(merge.nuslerp, axis=-1)),
    gives='model',
    hyper={'t': (0.3, 0.8)},
    but={'permutation': ARC, 'zero': ARC, 'base shift': ARC},
  ),
  'nearswap': Row(
    _ends(merge.nearswap),
    gives='model',
    hyper={'t': (0.3, 0.8)},
    but={'permutation': ARC, 'zero': ARC, 'base shift': ARC},
  ),
  'arcee_fusion': Row(
    _ends(merge.arcee_fusion),
    gives='model',
    but={
      'vmap': NO_NUMBERS,
      **dict.fromkeys(('permutation', 'zero', 'base shift'), ARC),
    },
  ),
  'multislerp': Row(
    _all_models(merge.multislerp),
    gives='model',
    sides=_weights,
    hyper={'eps': (1e-8, 1e-3)},
    but={'zero': SPHERE, 'base shift': SPHERE},
  ),
  'karcher': Row(
    _all_models(merge.karcher),
    gives='model',
    sides=_weights,
    hyper={'tolerance': (1e-5, 1e-2)},
    but={'zero': SPHERE, 'base shift': SPHERE},
  ),
  'model_stock': Row(
    _with(merge.model_stock),
    but={
      'vmap': NO_NUMBERS,
      'identity': 'one model has no angle',
      'zero': 'the mean cosine falls with T',
    },
  ),
  'magmax': Row(_with(merge.magmax), but={'vmap': NO_NUMBERS}),
  'variance_corrected': Row(
    _with(merge.variance_corrected),
    but={'vmap': NO_NUMBERS, 'zero': 'it lowers the variance'},
  ),
  'variance_corrected/own': Row(
    _with(merge.variance_corrected, target='conservative'),
    hyper={'self_weight': (0.5, 0.25)},
    but={
      'identity': 'one model has no others',
      'permutation': 'the first model is the own one',
      'zero': 'it lowers the variance',
    },
  ),
  'metric_weighted': Row(
    _with(merge.metric_weighted),
    sides=_metrics,
    hyper={'penalty': (0.5, 2.0)},
    but={'zero': 'a zero delta with a metric is a vote for the base'},
  ),
  'pcb': Row(
    _with(merge.pcb),
    hyper={'density': (0.5, 0.25), 'clip': (0.1, 0.05)},
    but={
      'identity': 'it clips the largest entries and drops the smallest score',
      'zero': 'the exponent of the scores grows with T',
    },
  ),
  'ram': Row(
    _with(merge.ram),
    hyper={'threshold': (0.3, 0.1)},
    identity={'threshold': 0.0},
  ),
  'ram_plus': Row(
    _with(merge.ram_plus),
    hyper={'threshold': (0.3, 0.1), 'rate': (0.5, 0.1), 'limit': (0.4, 0.9)},
    identity={'threshold': 0.0},
  ),
  'ram_plus/global': Row(
    _with(merge.ram_plus, scope='global'),
    hyper={'threshold': (0.3, 0.1), 'rate': (0.5, 0.1), 'limit': (0.4, 0.9)},
    identity={'threshold': 0.0},
  ),
  'sce': Row(
    _with(merge.sce),
    hyper={'select': (0.6, 0.9)},
    identity={'select': 1.0},
    but={'zero': 'the variance falls with T'},
  ),
  'della': Row(
    _della,
    gives='deltas',
    hyper={'density': (0.5, 0.6), 'epsilon': (0.2, 0.1)},
    identity={'density': 1.0, 'epsilon': 0.0},
    but={'permutation': FIXED_MASK},
  ),
  'rescale': Row(
    _rescale,
    gives='deltas',
    hyper=TRIM,
    identity={'density': 1.0},
  ),
  'scale.by_depth': Row(
    _by_depth,
    gives='deltas',
    hyper={'start': (0.25, 1.0), 'end': (0.75, 0.5)},
    identity={'start': 1.0, 'end': 1.0},
  ),
}

# Public functions without a row.
NO_ROW = {
  'cat': 'it takes factors: tests/merge/families',
  'layerwise': 'it takes a method: tests/merge/layerwise_test.py',
  'passthrough': 'it copies one model: tests/merge/families',
  'fit_router': 'it takes features: tests/merge/families',
  'route': 'it takes features: tests/merge/families',
  'frank_wolfe': 'it needs a loss: tests/merge/learned',
  'localize': 'it needs a loss: tests/merge/learned',
  'regmean_plus': 'it runs the model: tests/merge/learned',
  'opcm': 'a stream: tests/merge/streams',
  'running_mean': 'a stream: tests/merge/streams',
  'exponential_mean': 'a stream: tests/merge/streams',
  'fold': 'it runs a stream: tests/merge/streams',
  'order_sensitivity': 'it runs a stream: tests/merge/streams',
}


def make(models: int, seed: int = 0) -> types.Deltas:
  """Stacks two matrices and a scalar, and has None for an integer leaf."""
  x = lambda i, *shape: jnp.asarray(_normal(10 * seed + i, models, *shape))
  return {
    'block_0': {'w': x(0, 4, 8)},
    'block_1': {'w': x(1, 4, 8), 'scale': x(2)},
    'step': None,
  }


@functools.cache
def stacked(models: int, seed: int = 0) -> types.Deltas:
  return make(models, seed)


def first(row: Row) -> dict[str, float]:
  return {name: values[0] for name, values in row.hyper.items()}


@functools.cache
def expected(name: str) -> Any:
  """Returns the eager result, the reference of all other calls."""
  row = METHODS[name]
  return row.call(stacked(T), row.sides(T), **first(row))


def same(found: Any, wanted: Any, atol: float = 1e-12) -> None:
  """Compares two trees; in float32 to a few hundred of its eps."""
  atol = atol if np.float64 == FLOAT else 3e-5
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for path, x in tree.named(found).items():
    y = np.asarray(tree.named(wanted)[path])
    np.testing.assert_allclose(
      np.asarray(x), y, rtol=0, atol=atol, err_msg=path
    )


def keeping(promise: str) -> Any:
  """Parametrizes a test over the rows without an exception to it."""
  names = [name for name, row in METHODS.items() if promise not in row.but]
  return pytest.mark.parametrize('name', names)
