import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.stats import traced
from wsl import stats, tree


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def perceptron(params, x):
  hidden = jnp.tanh(x @ params['in'] + params['bias'][None])
  return hidden @ params['out']


PARAMS = {'in': normal(1, 4, 5), 'bias': normal(2, 5), 'out': normal(3, 5, 3)}
X = normal(0, 7, 4)
equal = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-15)


def by_definition(apply_fn, params, x, labels=None):
  """One example and one class at a time."""
  total = jax.tree.map(np.zeros_like, params)
  log_p = lambda q, x, c: jax.nn.log_softmax(apply_fn(q, x)[0])[c]
  slope = jax.jit(jax.grad(log_p))
  for i in range(len(x)):
    p = np.array(jax.nn.softmax(apply_fn(params, x[i : i + 1])[0]))
    for c in range(p.size):
      if labels is not None:
        p[c] = float(labels[i] == c)
      gradient = slope(params, x[i : i + 1], c)
      total = jax.tree.map(
        lambda f, g: f + p[c] * np.square(g) / len(x),  # noqa: B023
        total,
        gradient,
      )
  return total


def test_against_the_definition():
  found = stats.fisher(perceptron, PARAMS, [X])
  jax.tree.map(equal, found, by_definition(perceptron, PARAMS, X))


def test_closed_form_of_a_linear_classifier():
  params, x = {'w': normal(1, 4, 3)}, X
  p = np.asarray(jax.nn.softmax(x @ params['w']))
  # d log p_c / d w_ij = x_i (1[c = j] - p_j); E_c of its square.
  expected = np.square(x).T @ (p * (1 - p)) / len(x)
  found = stats.fisher(lambda q, x: x @ q['w'], params, [x])['w']
  equal(found, expected)


def test_squaring_after_summing_over_the_batch_differs():
  def summed(params):
    log_p = jax.nn.log_softmax(perceptron(params, X))
    return jnp.sum(jnp.sqrt(jnp.exp(jax.lax.stop_gradient(log_p))) * log_p)

  wrong = jax.tree.map(
    lambda g: np.square(g) / len(X), jax.grad(summed)(PARAMS)
  )
  right = stats.fisher(perceptron, PARAMS, [X])
  ratio = tree.norm(jax.tree.map(jnp.subtract, wrong, right))
  assert ratio / tree.norm(right) > 0.1


@pytest.mark.parametrize(
  ('labels', 'chunk'),
  [('expected', 1), ('expected', 100), ('sampled', 2), ('empirical', 2)],
)
def test_chunks_and_unequal_batches_change_nothing(labels, chunk):
  y = jnp.asarray([0, 2, 1, 1, 0, 2, 2])
  key = jax.random.key(5) if labels == 'sampled' else None
  find = functools.partial(
    stats.fisher, perceptron, PARAMS, labels=labels, key=key
  )
  batches = ((X[i : i + 3], y[i : i + 3]) for i in range(0, 7, 3))
  whole = find([(X, y)], chunk=7)
  jax.tree.map(equal, find(batches, chunk=chunk), whole)


def test_labels_of_the_data():
  y = jnp.asarray([0, 2, 1, 1, 0, 2, 2])
  found = stats.fisher(perceptron, PARAMS, [(X, y)], labels='empirical')
  jax.tree.map(equal, found, by_definition(perceptron, PARAMS, X, y))


def test_sampled_labels_are_unbiased():
  keys = jax.random.split(jax.random.key(0), 2000)
  draw = lambda key: stats.fisher(
    perceptron, PARAMS, [X], labels='sampled', key=key
  )
  mean = jax.tree.map(lambda f: f.mean(0), jax.vmap(draw)(keys))
  exact = stats.fisher(perceptron, PARAMS, [X])
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=0.1, atol=0.02),
    mean,
    exact,
  )
  once, again = draw(keys[0]), draw(keys[1])
  assert not np.allclose(once['out'], again['out'])


def test_shift_of_all_logits_has_no_information():
  params = {'w': PARAMS, 'shift': jnp.ones((1, 1))}
  apply_fn = lambda p, x: (
    perceptron(p['w'], x) + jnp.broadcast_to(p['shift'], (len(x), 3))
  )
  found = stats.fisher(apply_fn, params, [X])
  equal(found['shift'], 0.0)
  jax.tree.map(equal, found['w'], stats.fisher(perceptron, PARAMS, [X]))


def test_confident_models_stay_finite():
  params = {'w': 1e4 * normal(1, 4, 3)}
  found = stats.fisher(lambda p, x: x @ p['w'], params, [X])['w']
  assert np.isfinite(found).all()


def test_integer_leaves_are_none_and_half_precision_is_summed_wider():
  params = {
    'w': jnp.ones((4, 3), 'bfloat16'),
    'steps': jnp.zeros((), int),
    'none': None,
  }
  apply_fn = lambda p, x: x @ p['w']
  found = stats.fisher(apply_fn, params, [X.astype('bfloat16')])
  assert found['steps'] is None
  assert found['none'] is None
  assert found['w'].dtype == 'float32'
  p = np.full((7, 3), 1 / 3)
  expected = np.square(X).T @ (p * (1 - p)) / 7
  np.testing.assert_allclose(found['w'], expected, rtol=0.02)


def test_batches_of_one_size_compile_once_for_every_model():
  apply_fn, shapes = traced.linear()
  for seed in range(3):
    batches = [normal(i, 4, 5) for i in range(3)]
    stats.fisher(apply_fn, {'w': normal(seed, 5, 2)}, batches, chunk=2)
  assert len(shapes) == 1


def test_vmap_over_models_and_jit():
  many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), PARAMS)
  find = lambda p: stats.fisher(perceptron, p, [X[:4], X[4:]])
  together = jax.jit(jax.vmap(find))(many)
  separate = tree.stack(
    [find(jax.tree.map(lambda x: x[i], many)) for i in range(2)]  # noqa: B023
  )
  jax.tree.map(equal, together, separate)


def test_inputs_may_be_a_tree_and_integers():
  params = {'table': normal(1, 6, 4), 'out': normal(3, 4, 3)}
  tokens = jnp.asarray([[0, 3], [5, 3], [1, 1]])

  def apply_fn(p, inputs):
    words = p['table'][inputs['tokens']] * inputs['mask'][:, :, None]
    return words.sum(1) @ p['out']

  found = stats.fisher(
    apply_fn, params, [{'tokens': tokens, 'mask': jnp.ones((3, 2))}], chunk=2
  )
  rows = params['table'][tokens].sum(1)
  head = stats.fisher(lambda w, x: x @ w, params['out'], [rows])
  equal(found['out'], head)
  assert (np.abs(found['table']).sum(1) > 0).tolist() == [
    True, True, False, True, False, True,
  ]  # fmt: skip


@pytest.mark.parametrize(
  ('batches', 'options', 'message'),
  [
    ([], {}, 'fisher: no batches given'),
    (X, {}, 'fisher: batches is one array of shape (7, 4)'),
    ([X[:0]], {}, 'fisher: batch 0 holds no examples'),
    ([X], {'chunk': 0}, 'chunk=0 examples, expected at least 1'),
    ([X], {'labels': 'sample'}, "(did you mean 'sampled'?)"),
    ([X], {'labels': 'sampled'}, "labels='sampled' and no key"),
    ([X], {'key': jax.random.key(0)}, "labels='expected' and a key"),
    ([X], {'labels': 'empirical'}, 'needs batches (inputs, labels)'),
    (
      [(X, jnp.ones(7))],
      {'labels': 'empirical'},
      'integer labels of shape (7,), got float64',
    ),
  ],
)
def test_bad_arguments_are_named(batches, options, message):
  with pytest.raises(ValueError) as error:
    stats.fisher(perceptron, PARAMS, batches, **options)
  assert message in str(error.value)


def test_logits_of_another_rank_are_named():
  with pytest.raises(ValueError, match='must return logits'):
    stats.fisher(lambda p, x: perceptron(p, x)[0], PARAMS, [X])
