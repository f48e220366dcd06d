"""Models of different widths: copies of units, and symmetries of both."""

import itertools

import numpy as np

from tests.align.match import weight_matching_test as examples
from wsl import align, tree

F = align.Factor
VECTORS = {'.*': None}  # no leaf contracts a group
MLP_VIEWS = {'^w': tree.Matrix(rows=(0,), columns=(1,))}
ATTENTION_VIEWS = {
  '^[qkv]$': tree.Matrix(rows=(0,), columns=(1,)),
  '^o$': tree.Matrix(rows=(0,), columns=(1,)),
}


def mlp(sizes, seed):
  rng = np.random.default_rng(seed)
  params = {}
  for i, (n, m) in enumerate(itertools.pairwise(sizes)):
    params |= {f'w{i}': rng.normal(size=(n, m)), f'b{i}': rng.normal(size=m)}
  return params


def apply(params, x):
  last = len(params) // 2 - 1
  params = {n: np.asarray(x) for n, x in params.items()}
  for i in range(last):
    x = np.tanh(x @ params[f'w{i}'] + params[f'b{i}'])
  return x @ params[f'w{last}'] + params[f'b{last}']


def copy_units(params, copies, seed):
  """Widens hidden layers: unit i occurs copies[layer][i] times, shuffled.

  Weights out are split in random shares. Returns the shares too.
  """
  rng = np.random.default_rng(seed)
  wide, shares = dict(params), []
  for i, counts in enumerate(copies):
    source = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    share = rng.uniform(0.5, 1.5, len(source))
    share /= np.bincount(source, share)[source]
    wide |= {f'w{i}': wide[f'w{i}'][:, source], f'b{i}': wide[f'b{i}'][source]}
    wide[f'w{i + 1}'] = wide[f'w{i + 1}'][source] * share[:, None]
    shares.append(share)
  return wide, shares


SMALL, WIDE = (5, 4, 3, 2), (5, 7, 6, 2)
COPIES = ((3, 1, 1, 2), (1, 4, 1))
PAIR = {'symmetry': examples._mlp(SMALL), 'other': examples._mlp(WIDE)}
BACK = {'symmetry': examples._mlp(WIDE), 'other': examples._mlp(SMALL)}


def gap(first, second):
  return max(float(np.abs(first[n] - second[n]).max()) for n in first)


def resized(symmetry, sizes):
  factors = tuple(
    f if f.pinned else f._replace(size=sizes[f.size]) for f in symmetry.factors
  )
  return align.Symmetry(factors, symmetry.axes)


def drawn(symmetry, seed):
  rng = np.random.default_rng(seed)
  params = {}
  for name, _ in symmetry.axes:
    widths = [
      sum(int(np.prod([f.size for f in segment])) for segment in axis)
      for axis in symmetry.plan(name)
    ]
    params[name] = rng.normal(size=widths)
  return params


def attention(heads, units, vo):
  axis = examples._axis
  return align.Symmetry(
    (
      examples._fixed(3, 'x'),
      F('h', heads),
      F('qk', units, outer=('h',)),
      F('vo', vo, outer=('h',)),
    ),
    (
      ('k', (axis('x'), axis('h', 'qk'))),
      ('o', (axis('h', 'vo'), axis('x'))),
      ('q', (axis('x'), axis('h', 'qk'))),
      ('v', (axis('x'), axis('h', 'vo'))),
    ),
  )


def semi_permutations(n, m):
  """All one-hot matrices [n, m], or [m, n] transposed, without empty lines."""
  if n < m:
    return [t.T for t in semi_permutations(m, n)]
  maps = itertools.product(range(m), repeat=n)
  return [np.eye(m)[[*s]] for s in maps if len({*s}) == m]
