"""Bad input raises one line that names the function and the argument."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import deltas, merge, scale, tree, types

KEY = jax.random.key(0)
X = {'w': jnp.ones((2, 3, 4)), 'b': jnp.ones((2, 4))}
PAIR = {'w': jnp.ones(2)}


def gram(*shape: int, axes: tuple[int, ...] = (0,)) -> types.Gram:
  return types.Gram(jnp.ones(shape), jnp.ones(shape[0]), axes)


def regmean(g: Any, **options: Any) -> Any:
  return merge.regmean(
    X, grams={'w': g, 'b': None}, **{'shrink': 0.5} | options
  )


def frank_wolfe(**options: Any) -> Any:
  base = {'w': X['w'][0], 'b': X['b'][0]}
  loss = lambda params, x: jnp.sum(params['b']) * x
  given = {'base': base, 'loss_fn': loss, 'batches': jnp.ones(2)}
  return merge.frank_wolfe(X, **given | options)


CASES: dict[str, tuple[Any, str]] = {
  'no float leaf': (
    lambda: merge.sum({'n': None}),
    'sum: the deltas have no float leaf: nothing to merge',
  ),
  'no models': (
    lambda: merge.mean({'w': jnp.ones((0, 3))}),
    "mean: leaf 'w' of shape (0, 3) holds no model: stack at least one by "
    'deltas.stack',
  ),
  'not stacked': (
    lambda: merge.mean({'s': jnp.ones(())}),
    "mean: leaf 's' of shape () holds no model",
  ),
  'models differ in number': (
    lambda: merge.ties(
      {'a': jnp.ones((2, 3)), 'b': jnp.ones((3, 3))}, density=1
    ),
    "ties: leaf 'b' stacks 3 models, the leaves before it 2",
  ),
  'an integer leaf': (
    lambda: merge.trim({'n': jnp.ones((2, 3), jnp.int32)}, density=0.5),
    "trim: leaf 'n' is of int32, not a stack of floats",
  ),
  'numbers, no arrays': (
    lambda: merge.sum({'w': [1.0, 2.0]}),
    "sum: leaf 'w/0' is of float, not a stack of floats",
  ),
  'density 0': (
    lambda: merge.trim(X, density=0.0),
    'trim(density=0.0): density is the fraction kept, expected 0 < density',
  ),
  'dare by two draws': (
    lambda: merge.dare(X, rate=0.5, key=KEY, mask=X),
    'dare: give one of key=, uniforms= and mask=',
  ),
  'a mask of one model': (
    lambda: merge.dare(
      X, rate=0.5, key=None, mask={'w': X['w'], 'b': X['b'][0]}
    ),
    "dare: mask leaf 'b' has shape (4,), expected (2, 4), one value for each",
  ),
  'vote': (
    lambda: merge.elect_sign(X, vote='shares'),
    "elect_sign: vote='shares': expected one of ['count', 'largest', 'share', "
    "'sum']",
  ),
  'trim by two rules': (
    lambda: merge.trim(X, density=0.5, energy=0.5),
    'trim: give one of density=, energy= and deviations=',
  ),
  'energy above 1': (
    lambda: merge.trim(X, energy=2.0),
    'trim(energy=2.0): energy is the share of the squared norm',
  ),
  'density above 1': (
    lambda: merge.ties(X, density=20),
    'ties(density=20): density is the fraction kept, expected 0 < density <= 1',
  ),
  'density NaN': (lambda: merge.ties(X, density=np.nan), 'ties(density=nan)'),
  'densities for other models': (
    lambda: merge.ties(X, density=[0.5, 0.5, 0.5]),
    'ties: density has shape (3,), expected () or (2,), one for each model',
  ),
  'scope': (
    lambda: merge.ties(X, density=0.5, scope='globe'),
    "ties: scope='globe': expected one of ['global', 'leaf'] (did you mean "
    "'global'?)",
  ),
  'scope of trim': (
    lambda: merge.trim(X, density=0.5, scope='globe'),
    "trim: scope='globe': expected one of ['global', 'leaf']",
  ),
  'own variance without an own model': (
    lambda: merge.variance_corrected(X, target='self'),
    "variance_corrected(target='self'): there is no own model: give "
    'self_weight',
  ),
  'no others': (
    lambda: merge.variance_corrected({'w': X['w'][:1]}, self_weight=0.5),
    'variance_corrected: one model has no others: stack the own one, then',
  ),
  'share of the own model': (
    lambda: merge.variance_corrected(X, self_weight=2.0),
    'variance_corrected(self_weight=2.0): self_weight is the share of the',
  ),
  'metrics of other models': (
    lambda: merge.metric_weighted(X, metrics=[1.0], penalty=1),
    'metric_weighted: metrics has shape (1,), expected (2,), one for each',
  ),
  'a metric of 0': (
    lambda: merge.metric_weighted(X, metrics=[1.0, 0.0], penalty=1),
    'metric_weighted(metrics=[1.0, 0.0]): expected finite numbers > 0',
  ),
  'negative penalty': (
    lambda: merge.metric_weighted(X, metrics=[1.0, 2.0], penalty=-1),
    'metric_weighted(penalty=-1): expected numbers >= 0',
  ),
  'dialect of emr': (
    lambda: merge.emr(X, dialect='papper'),
    "emr: dialect='papper': expected one of ['official', 'paper'] (did you",
  ),
  'no triplet kept': (
    lambda: merge.tsv_compress(X, kept=0.0),
    'tsv_compress(kept=0.0): the fraction of singular triplets, expected 0 <',
  ),
  'half a step of wudi': (
    lambda: merge.wudi(X, steps=1.5),
    'wudi(steps=1.5): expected an integer >= 0',
  ),
  'rate of wudi': (
    lambda: merge.wudi(X, rate=-1.0),
    'wudi(rate=-1.0): expected numbers >= 0',
  ),
  'no merge of coordinates': (
    lambda: merge.knots(X, method=lambda z: z),
    "knots: method returned no merge (1, 3, 4) of leaf 'w': give one such as",
  ),
  'rank of knots': (
    lambda: merge.knots(X, method=merge.sum, rank=0),
    'knots(rank=0): expected an integer >= 1, or None',
  ),
  'subspace of doge': (
    lambda: merge.doge(X, subspace=0),
    'doge(subspace=0): expected an integer >= 1',
  ),
  'norm of doge': (
    lambda: merge.doge(X, norm=-1.0),
    'doge(norm=-1.0): expected numbers >= 0',
  ),
  'density and masks': (
    lambda: merge.localize_and_stitch(X),
    'localize_and_stitch: give density or masks (from localize), one of them',
  ),
  'masks of another shape': (
    lambda: merge.localize_and_stitch(
      X, masks={'w': jnp.ones((2, 3)), 'b': X['b']}
    ),
    "localize_and_stitch: the mask of leaf 'w' has shape (2, 3), expected (2,",
  ),
  'batches of other tasks': (
    lambda: merge.localize(
      X,
      base={'w': X['w'][0], 'b': X['b'][0]},
      loss_fn=lambda p, x: jnp.sum(p['b']),
      batches={'x': jnp.ones((3, 1))},
      density=0.5,
      steps=1,
      rate=1.0,
    ),
    "localize: the batches' 'x' has shape (3, 1), expected (2, ...), one for",
  ),
  'a loss for each example': (
    lambda: frank_wolfe(loss_fn=lambda p, x: p['b'] * x),
    'loss_fn returned an array of shape (4,), expected a scalar: take the mean',
  ),
  'more tasks than experts': (
    lambda: frank_wolfe(batches=jnp.ones(3), form='soft'),
    'frank_wolfe: 3 tasks select from 2 experts, one each: give at most 2',
  ),
  'form of frank_wolfe': (
    lambda: frank_wolfe(form='hrad'),
    "frank_wolfe: form='hrad': expected one of ['hard', 'soft'] (did you mean",
  ),
  'a start of other leaves': (
    lambda: frank_wolfe(start={'w': X['w'][0], 'b': jnp.ones(3)}),
    "frank_wolfe: the start does not have (4,) at leaf 'b'",
  ),
  'clip of pcb': (
    lambda: merge.pcb(X, density=0.5, clip=0.5),
    'pcb(clip=0.5): clip is the fraction clipped at either end, expected 0 <= '
    'clip < 0.5',
  ),
  'clips of pcb': (
    lambda: merge.pcb(X, density=0.5, clip=[0.1, 0.1]),
    'pcb: clip has shape (2,), expected a number',
  ),
  'dialect of pcb': (
    lambda: merge.pcb(X, density=0.5, dialect='vison'),
    "pcb: dialect='vison': expected one of ['es', 'merging', 'vision'] (did "
    "you mean 'vision'?)",
  ),
  'dialect of ties': (
    lambda: merge.ties(X, density=0.5, dialect='papper'),
    "ties: dialect='papper': expected one of ['mergekit', 'official', 'paper', "
    "'peft'] "
    "(did you mean 'paper'?)",
  ),
  'no density left': (
    lambda: merge.breadcrumbs(X, density=0.0, outliers=0.1),
    'breadcrumbs(density=0.0): density is the fraction kept, expected '
    '0 < density <= 1',
  ),
  'outliers': (
    lambda: merge.breadcrumbs(X, density=0.5, outliers=-0.1),
    'breadcrumbs(outliers=-0.1): outliers is the fraction dropped for being '
    'the largest, expected 0 <= outliers <= 1',
  ),
  'outliers for other models': (
    lambda: merge.breadcrumbs(X, density=0.5, outliers=[0.1, 0.1, 0.1]),
    'breadcrumbs: outliers has shape (3,), expected () or (2,), one for each '
    'model',
  ),
  'density and outliers': (
    lambda: merge.breadcrumbs(X, density=0.9, outliers=[0.1, 0.2]),
    'breadcrumbs(density=0.9, outliers=[0.1, 0.2]): the fractions kept and '
    'dropped exceed 1 together, expected density + outliers <= 1',
  ),
  'scope of breadcrumbs': (
    lambda: merge.breadcrumbs(X, density=0.5, outliers=0.1, scope='leav'),
    "breadcrumbs: scope='leav': expected one of ['global', 'leaf'] (did you "
    "mean 'leaf'?)",
  ),
  'scope of breadcrumbs without outliers': (
    lambda: merge.breadcrumbs(X, density=0.5, outliers=0, scope='leav'),
    "breadcrumbs: scope='leav': expected one of ['global', 'leaf']",
  ),
  'reduce': (
    lambda: merge.ties(X, density=0.5, reduce='meen'),
    "ties: reduce='meen': expected one of ['max', 'mean', 'sum'] (did you mean "
    "'mean'?)",
  ),
  'dialect': (
    lambda: merge.elect_sign(X, dialect='mergkit'),
    "elect_sign: dialect='mergkit': expected one of ['mergekit', 'official', "
    "'paper', 'peft'] (did you mean 'mergekit'?)",
  ),
  'rate': (
    lambda: merge.dare(X, rate=1.1, key=KEY),
    'dare(rate=1.1): rate is the fraction dropped, expected 0 <= rate <= 1',
  ),
  'rate NaN': (lambda: merge.dare(X, rate=np.nan, key=KEY), 'rate=nan'),
  'rates for other models': (
    lambda: merge.dare(X, rate=[0.5, 0.5, 0.5], key=KEY),
    'dare: rate has shape (3,), expected () or (2,), one for each model',
  ),
  'a traced common': (
    lambda: jax.jit(lambda c: merge.iso_cts(X, common=c))(0.5),
    'iso_cts: common is traced, and sets shapes: give a number that is known',
  ),
  'rescale': (
    lambda: merge.dare(X, rate=0.5, key=KEY, rescale='invers'),
    "(did you mean 'inverse'?)",
  ),
  'threshold': (
    lambda: merge.tall_masks(X, threshold=-0.1),
    'tall_masks(threshold=-0.1): expected numbers >= 0',
  ),
  'threshold NaN': (
    lambda: merge.consensus(X, threshold=np.nan, min_tasks=2),
    'consensus(threshold=nan)',
  ),
  'thresholds for other models': (
    lambda: merge.tall_masks(X, threshold=[0.1, 0.2, 0.3]),
    'threshold has shape (3,), expected () or (2,), one for each model',
  ),
  'min_tasks': (
    lambda: merge.consensus(X, threshold=0.4, min_tasks=-1),
    'consensus(min_tasks=-1): expected numbers >= 0',
  ),
  'merged of another model': (
    lambda: merge.tall_masks(X, threshold=0.4, merged={'w': X['w'][0]}),
    "tall_masks: merged: no leaf 'b' as in the deltas",
  ),
  'merged is a stack': (
    lambda: merge.consensus(X, threshold=0.4, min_tasks=2, merged=X),
    'consensus: merged leaf',
  ),
  'task': (
    lambda: merge.materialize(merge.tall_masks(X, threshold=0.4), 2),
    'materialize(task=2): expected a task of 0 .. 1',
  ),
  'weights of members': (
    lambda: merge.materialize(X, [0.5, 0.2, 0.3]),
    'materialize: task has shape (3,), expected an index, or (2,), a weight '
    'for each task',
  ),
  'twins without a key': (
    lambda: merge.twins(X, density=0.5, compress='random'),
    "twins(compress='random'): give key=",
  ),
  'twins with a key': (
    lambda: merge.twins(X, density=0.5, key=KEY),
    "twins(compress='svd'): key= is for 'random' only",
  ),
  'shared of another shape': (
    lambda: merge.twins(X, density=0.5, shared=X),
    "twins: shared leaf 'b' has shape (2, 4), expected (4,)",
  ),
  'rmm without a rank': (
    lambda: merge.rmm(X, basis=1),
    "rmm: leaf 'w' is a matrix: give rank=, or factors of LoRAs by",
  ),
  'half a basis': (
    lambda: merge.rmm(X, basis=0.5, rank=1),
    'rmm(basis=0.5): expected an integer >= 0',
  ),
  'form of tsv_compress': (
    lambda: merge.tsv_compress(X, form='factor'),
    "tsv_compress: form='factor': expected one of ['dense', 'factors']",
  ),
  'tasks that are no integers': (
    lambda: merge.fit_router(jnp.ones((2, 3)), jnp.ones(2), count=2),
    'fit_router: tasks are no integers: give 0 .. T-1',
  ),
  'features of other inputs': (
    lambda: merge.fit_router(jnp.ones((2, 3)), jnp.arange(3), count=2),
    'fit_router: features (2, 3) and tasks (3,): give [N, d] and [N]',
  ),
  'weights for other models': (
    lambda: merge.weighted_mean(X, [1.0, 2.0, 3.0]),
    "weighted_mean: the weight of leaf 'b' has shape (3,), expected (2,) or "
    '(2, 4)',
  ),
  'one weight': (
    lambda: merge.weighted_mean(X, 1.0),
    "the weight of leaf 'b' has shape ()",
  ),
  'weights lack a leaf': (
    lambda: merge.weighted_mean(X, {'w': jnp.ones(2), 'bb': jnp.ones(2)}),
    "weighted_mean: the weights: no leaf 'b' as in the deltas (did you mean "
    "'bb'?)",
  ),
  'weights have a leaf more': (
    lambda: merge.weighted_mean(X, dict.fromkeys('wbv', jnp.ones(2))),
    "a leaf 'v' that is not in the deltas: take it out",
  ),
  'fishers lack a leaf': (
    lambda: merge.fisher(X, fishers={'w': X['w']}),
    "fisher: the fishers: no leaf 'b' as in the deltas",
  ),
  'fishers at an integer': (
    lambda: merge.fisher(X | {'n': None}, fishers=X | {'n': jnp.ones(2)}),
    "fisher: the fishers: a leaf 'n' where the deltas have None",
  ),
  'fishers of one model': (
    lambda: merge.fisher(X, fishers={'w': X['w'][0], 'b': X['b']}),
    "fisher: leaf 'w' of shape (2, 3, 4) has a Fisher diagonal of shape (3, 4):"
    ' stack one for each model by tree.stack',
  ),
  'floors for other models': (
    lambda: merge.fisher(X, fishers=X, floor=[1e-6, 0, 0]),
    'fisher: floor has shape (3,)',
  ),
  'coefs for other models': (
    lambda: merge.fisher(X, fishers=X, coefs=jnp.ones(3)),
    'fisher: coefs has shape (3,)',
  ),
  'shrink': (
    lambda: regmean(gram(2, 1, 3, 3), shrink=1.5),
    'regmean(shrink=1.5): the factor of off-diagonal entries, expected '
    '0 <= shrink <= 1',
  ),
  'grams lack a leaf': (
    lambda: merge.regmean(X, grams={'w': None}, shrink=0.5),
    "regmean: the grams: no leaf 'b' as in the deltas",
  ),
  'grams of another size': (
    lambda: regmean(gram(2, 1, 4, 4)),
    "regmean: leaf 'w' of shape (2, 3, 4) with the input axes (0,) needs Gram "
    'matrices [2, groups, 3, 3], found (2, 1, 4, 4): stack one for each model',
  ),
  'grams for other models': (
    lambda: regmean(gram(3, 1, 3, 3)),
    'found (3, 1, 3, 3)',
  ),
  'a gram of one model': (lambda: regmean(gram(1, 3, 3)), 'found (1, 3, 3)'),
  'gram groups': (lambda: regmean(gram(2, 3, 3, 3)), 'found (2, 3, 3, 3)'),
  'gram axes': (lambda: regmean(gram(2, 1, 3, 3, axes=(5,))), 'axes (5,)'),
  'regmean coefs': (
    lambda: regmean(gram(2, 1, 3, 3), coefs=[1.0]),
    'regmean: coefs has shape (1,), expected () or (2,)',
  ),
  'common': (
    lambda: merge.iso_cts(X, common=1.1),
    'iso_cts(common=1.1): the fraction of common directions, expected '
    '0 <= common <= 1',
  ),
  'matrices choose nothing': (
    lambda: merge.tsv(X, matrices='kernel'),
    "tsv: matrices: no leaf matches 'kernel': the names are ['b', 'w']",
  ),
  'matrices choose a vector': (
    lambda: merge.iso_c(X, matrices='b'),
    "iso_c: leaf 'b' of shape (4,) is chosen as a matrix and has fewer than two"
    ' axes: narrow `matrices`',
  ),
  'slerp shapes': (
    lambda: merge.slerp(PAIR, {'w': jnp.ones(3)}, t=0.5),
    "slerp: b: leaf 'w' has shape (3,), a has (2,)",
  ),
  'slerp dtypes': (
    lambda: merge.slerp(PAIR, {'w': jnp.ones(2, jnp.float32)}, t=0.5),
    "slerp: b: leaf 'w' has dtype float32, a has float64: cast it",
  ),
  'slerp leaf missing': (
    lambda: merge.slerp(
      {'kernel': jnp.ones(2)}, {'kernal': jnp.ones(2)}, t=0.5
    ),
    "slerp: b: no leaf 'kernel' as in a (did you mean 'kernal'?)",
  ),
  'slerp leaf more': (
    lambda: merge.slerp(PAIR, PAIR | {'v': jnp.ones(1)}, t=0.5),
    "slerp: b: a leaf 'v' that is not in a: take it out",
  ),
  'slerp NaN': (
    lambda: merge.slerp(PAIR, {'w': jnp.asarray([1.0, np.nan])}, t=0.5),
    "slerp: b: leaf 'w' holds 1 NaN or infinite value",
  ),
  'slerp scope': (
    lambda: merge.slerp(PAIR, PAIR, t=0.5, scope='leav'),
    "slerp: scope='leav': expected one of ['global', 'leaf']",
  ),
  'weights that cancel': (
    lambda: merge.multislerp([PAIR, PAIR], weights=[1.0, -1.0]),
    'multislerp(weights=[ 1. -1.]): they sum to 0',
  ),
  'no weights': (
    lambda: merge.karcher([PAIR, PAIR], weights=[0.0, 0.0]),
    'karcher(weights=[0. 0.]): they sum to 0',
  ),
  'half a step': (
    lambda: merge.karcher([PAIR, PAIR], steps=2.5),
    'karcher(steps=2.5): expected an integer >= 0',
  ),
  'nuslerp axis': (
    lambda: merge.nuslerp(*[{'w': jnp.ones((2, 3))}] * 2, t=0.5, axis=2),
    "nuslerp(axis=2): leaf 'w' of shape (2, 3) has no such axis",
  ),
  'model_stock axis': (
    lambda: merge.model_stock(X, axis=-3),
    "model_stock(axis=-3): leaf 'w' of shape (3, 4) has no such axis",
  ),
  # Of the stack [2, 3, 4] the axis of the models would be taken.
  'della axis': (
    lambda: merge.della(X, density=0.5, epsilon=0.1, key=KEY, axis=-3),
    "della(axis=-3): leaf 'w' of shape (3, 4) has no such axis",
  ),
  'depth without a group': (
    lambda: scale.by_depth(PAIR, depth='w', start=0.0, end=1.0),
    "by_depth(depth='w'): expected one group that captures the block's number",
  ),
  'an unmerged stack': (
    lambda: deltas.apply({'w': X['w'][0], 'b': X['b'][0]}, X),
    'has shape (2, 4), the base (4,): merge the stack first',
  ),
}


@pytest.mark.parametrize('case', CASES)
def test_bad_input_raises_one_line(case: str) -> None:
  call, message = CASES[case]
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    call()
  assert '\n' not in str(error.value)


def test_an_option_is_checked_before_any_work() -> None:
  """The leaves would fail if they were read."""

  def fetch() -> Any:
    raise AssertionError('read')

  x = {'w': tree.Stored(fetch, (2, 3), np.dtype('float64'))}
  for call in (
    lambda: merge.ties(x, density=2.0),
    lambda: merge.ties(x, density=0.5, reduce='none'),
    lambda: merge.breadcrumbs(x, density=0.9, outliers=0.9),
    lambda: merge.dare(x, rate=2.0, key=KEY),
    lambda: merge.consensus(x, threshold=-1.0, min_tasks=2),
  ):
    with pytest.raises(ValueError):
      call()


def test_hyperparameters_under_jit_are_not_checked_but_work() -> None:
  jitted = jax.jit(lambda x, d: merge.ties(x, density=d))
  assert jitted(X, 1.0)['b'].tolist() == [1.0] * 4
