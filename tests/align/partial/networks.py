"""A perceptron with the definition of its merge in NumPy, and a convolution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from wsl import align, stats

F = align.Factor
WIDTHS = (3, 6, 5, 4)


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@jax.jit
def mlp(params, x):
  for i in range(2):
    x = jax.nn.relu(x @ params[f'w{i}'] + params[f'b{i}'][None])
  return x @ params['w2'] + params['b2'][None]


def draw(seed, widths=WIDTHS):
  params = {}
  for i, (n, m) in enumerate(itertools.pairwise(widths)):
    params[f'b{i}'] = normal(seed + 10 * i, m)
    params[f'w{i}'] = normal(seed + 10 * i + 1, n, m) / np.sqrt(n)
  return params


def one(*names):
  return tuple(((name,),) for name in names)


SYMMETRY = align.Symmetry(
  (F('h0', 6), F('h1', 5), F('y', 4, 'an output'), F('x', 3, 'an input')),
  (
    ('b0', one('h0')),
    ('b1', one('h1')),
    ('b2', one('y')),
    ('w0', one('x', 'h0')),
    ('w1', one('h0', 'h1')),
    ('w2', one('h1', 'y')),
  ),
)
X = normal(0, 60, 3)
HALF = {'h0': 0.5, 'h1': 0.4}


def close(a, b, rtol=1e-9, atol=1e-10):
  np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def run(a, b, separate, **options):
  grams = stats.joint_gram(mlp, [a, b], [X[:40], X[40:]])
  return align.pleas(
    a, b, symmetry=SYMMETRY, separate=separate, grams=grams, **options
  )


# A reference implementation of the definition in NumPy, for the MLP.


def unit_lists(a, b, counts):
  """Returns the (A, B) units of each new axis; None for an absent unit."""
  gains = align.unit_gains(a, b, symmetry=SYMMETRY)
  lists = {'x': [(i, i) for i in range(3)], 'y': [(i, i) for i in range(4)]}
  for name, k in counts.items():
    order = np.argsort(np.asarray(gains[name]), kind='stable')
    separate, kept = sorted(order[:k].tolist()), sorted(order[k:].tolist())
    lists[name] = [(i, i) for i in kept]
    lists[name] += [(i, None) for i in separate]
    lists[name] += [(None, i) for i in separate]
  return lists


def values(units, of_a, of_b):
  """Returns ``[rows, units]``: the mean where both models have the unit."""
  columns = []
  for i, j in units:
    parts = [m[:, k] for m, k in ((of_a, i), (of_b, j)) if k is not None]
    columns.append(np.mean(parts, 0))
  return np.stack(columns, 1)


def start(ins, outs, a, b):
  """Returns W_0 ``[in, out]`` by the blocks of the paper."""
  w = np.zeros((len(ins), len(outs)))
  for p, (i, j) in enumerate(ins):
    for q, (k, m) in enumerate(outs):
      of_a = a[i, k] if i is not None and k is not None else 0
      of_b = b[j, m] if j is not None and m is not None else 0
      w[p, q] = of_a + of_b
      if k is not None and m is not None:
        w[p, q] /= 2
  return w


def solve(z, y, w0, ins, outs, ridge):
  """Solves each output by least squares, on its allowed inputs."""
  w = np.zeros_like(w0)
  for q, (k, m) in enumerate(outs):
    rows = [
      p
      for p, (i, j) in enumerate(ins)
      if (i is not None and k is not None) or (j is not None and m is not None)
    ]
    part = z[:, rows]
    rho = ridge * np.mean(np.square(part))
    system = np.concatenate([part, np.sqrt(len(z) * rho) * np.eye(len(rows))])
    wanted = np.concatenate([y[:, q], np.sqrt(len(z) * rho) * w0[rows, q]])
    w[rows, q] = np.linalg.lstsq(system, wanted, rcond=None)[0]
  return w


def oracle(a, b, counts, ridge):
  lists = unit_lists(a, b, counts)
  a, b = (jax.tree.map(np.asarray, p) for p in (a, b))
  hidden = [(np.asarray(X), np.asarray(X))]
  axes = ['x', 'h0', 'h1', 'y']
  params, first, errors = {}, {}, {}
  for i, (source, target) in enumerate(itertools.pairwise(axes)):
    ins, outs = lists[source], lists[target]
    of_a, of_b = hidden[-1]
    z = values(ins, of_a, of_b)
    products = of_a @ a[f'w{i}'], of_b @ b[f'w{i}']
    y = values(outs, *products)
    w0 = start(ins, outs, a[f'w{i}'], b[f'w{i}'])
    w = w0 if ridge is None else solve(z, y, w0, ins, outs, ridge)
    params[f'w{i}'], first[f'w{i}'] = w, w0
    bias = values(outs, a[f'b{i}'][None], b[f'b{i}'][None])
    params[f'b{i}'] = bias[0]
    errors[f'w{i}'] = [np.square(z @ v - y).sum() for v in (w0, w)]
    hidden.append(
      tuple(
        np.maximum(p + m[f'b{i}'][None], 0) for p, m in zip(products, (a, b))
      )
    )
  return params, first, errors


def convolve(x, kernel, groups):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def first(params, x):
  scale = params['s'][None, None, None]
  return jnp.tanh(convolve(x, params['k'], 1) * scale)


@jax.jit
def conv(params, x):
  """A convolution, a depthwise one, a scale and a flattened dense head."""
  h = first(params, x)
  h = jnp.tanh(convolve(h, params['d'], h.shape[-1]))
  return h.reshape(len(h), -1) @ params['o']


def windows_of(x):
  """Returns the zero-padded windows ``[B * 9, 9]`` of ``[B, 3, 3]``."""
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
  cut = [padded[:, i : i + 3, j : j + 3] for i in range(3) for j in range(3)]
  return np.stack(cut, -1).reshape(-1, 9)


CONV = align.Symmetry(
  (
    F('c', 4),
    F('i', 2, 'an input'),
    F('p', 3, 'space'),
    F('q', 3, 'space'),
    F('p2', 3, 'space'),
    F('q2', 3, 'space'),
    F('u', 3, 'space'),
    F('v', 3, 'space'),
    F('y', 2, 'an output'),
  ),
  (
    ('d', ((('p2',),), (('q2',),), ((),), (('c',),))),
    ('k', one('p', 'q', 'i', 'c')),
    ('o', ((('u', 'v', 'c'),), (('y',),))),
    ('s', one('c')),
  ),
)


def draw_conv(seed):
  shapes = {'d': (3, 3, 1, 4), 'k': (3, 3, 2, 4), 'o': (36, 2), 's': (4,)}
  return {n: normal(seed + i, *s) for i, (n, s) in enumerate(shapes.items())}
