"""Products of weights and activations have an explicit precision everywhere.

An accelerator multiplies float32 in fewer bits unless a product asks for more,
and a user may lower the default. The functions of the user, here ``mlp``, keep
the precision that they ask for: ``'high'``, which marks them.
"""

from collections.abc import Iterator
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import operations, traces
from tests.operations import aligning, inputs
from tests.operations.inputs import KEY, mlp, T
from wsl import align, jaxprs, landscape, merge, scale, stats, tree

HIGHEST = (lax.Precision.HIGHEST,) * 2
USERS = (lax.Precision.HIGH,) * 2
# Primitives that multiply inside, and take no precision. Those that are missing
# here (svd, eigh, qr, lu, cholesky, triangular_solve) call a library on NVIDIA
# GPUs, in full precision, or are lowered to products, which ``lowering_test``
# checks.
HIDDEN = {
  *('eig', 'schur', 'hessenberg', 'symmetric_product', 'cholesky_update'),
  *('ormqr', 'fft', 'tridiagonal', 'scaled_matmul'),
}
A, B, OTHER = (inputs.params('float32', seed) for seed in (1, 2, 5))
MODELS = [inputs.params('float32', seed) for seed in range(T)]
DELTAS = tree.stack(MODELS)
X = inputs.normal('float32', inputs.N, 4, seed=3)
Y = inputs.normal('float32', inputs.N, 5, seed=4)
SYMMETRY = aligning.symmetry()


def equations(program: jaxprs.Program) -> Iterator[Any]:
  """Yields the equations of a program and of all programs inside it."""
  jaxpr: Any = getattr(program, 'jaxpr', program)
  for eqn in jaxpr.eqns:
    yield eqn
    for inner in jaxprs.inner(eqn):
      yield from equations(inner)


def products(program: jaxprs.Program) -> list[Any]:
  """Returns the products of a program."""
  found = equations(program)
  return [eqn for eqn in found if eqn.primitive.name in jaxprs.PRODUCTS]


def _pleas(**more):
  grams = stats.joint_gram(mlp, [A, B], [X])
  return align.pleas(
    A, B, symmetry=SYMMETRY, separate=0.5, grams=grams, **more
  ).params


def _loss(p, batch, key=None):
  return jnp.mean(jnp.square(mlp(p, batch)))


def _fit():
  bank = scale.bank(A, [B, OTHER])
  coefs = scale.init(bank, by='leaf')
  return scale.fit(
    tree.partial(_loss), A, bank, coefs, [X],
    optimizer=optax.sgd(0.1), steps=2, key=KEY,
  ).coefs  # fmt: skip


def _straight_through():
  return align.straight_through(
    A, B, symmetry=SYMMETRY, key=KEY, loss_fn=_loss, batches=[X]
  )


def _repair():
  measure = lambda p: stats.moments(mlp, p, [X])
  middle = landscape.interpolate(A, B, 0.5)
  return align.repair(
    middle, measure=measure, endpoints=[measure(A), measure(B)], shift=False
  )


# Functions that compute on the host between their products.
HOST = {
  'align.weight_matching': lambda: align.weight_matching(
    A, B, symmetry=SYMMETRY, key=KEY
  ),
  'align.activation_matching': lambda: align.activation_matching(
    A, B, symmetry=SYMMETRY, apply_fn=mlp, batches=[X]
  ),
  'align.sinkhorn': lambda: align.sinkhorn(
    A, B, symmetry=SYMMETRY, key=KEY, steps=2
  ),
  'align.match_many': lambda: align.match_many(
    [A, B, OTHER], symmetry=SYMMETRY, key=KEY
  ),
  'align.pleas': _pleas,
  'align.pleas, refit biases': lambda: _pleas(refit_biases=True),
  'align.merge_many': lambda: align.merge_many(
    [A, B, OTHER], symmetry=SYMMETRY, key=KEY
  ),
  'align.straight_through': _straight_through,
  'align.learned_matching': lambda: align.learned_matching(
    A, B, symmetry=SYMMETRY, key=KEY, loss_fn=_loss, batches=[X]
  ),
  'scale.fit': _fit,
  'align.repair': _repair,
  'merge.fisher': lambda: merge.fisher(
    DELTAS,
    fishers=tree.stack([stats.fisher(mlp, p, [X]) for p in MODELS]),
  ),
  'merge.regmean': lambda: merge.regmean(
    DELTAS,
    grams=tree.stack([stats.gram(mlp, p, [X]) for p in MODELS]),
    shrink=0.1,
  ),
  'stats.cross_moments': lambda: aligning.cross(X, Y),
  'stats.joint_gram': lambda: stats.joint_gram(mlp, [A, B], [X]),
  'landscape.singular_alignment': lambda: landscape.singular_alignment(A, B),
}


def _at(precision: Any) -> bool:
  both = precision if isinstance(precision, tuple) else (precision,) * 2
  return both in (HIGHEST, USERS)


@pytest.mark.parametrize('room', operations.ROOMS)
def test_products_of_traced_functions_ask_for_the_highest_precision(room):
  for name, traced in operations.traced(room, 'float32').items():
    program = traced.jaxpr
    for eqn in products(program):
      assert _at(eqn.params['precision']), (name, eqn)
    names = {eqn.primitive.name for eqn in equations(program)}
    assert not names & HIDDEN, name


@pytest.fixture
def asked(monkeypatch):
  """Collects the precision of each product that is traced or computed."""
  found = []

  def watch(primitive):
    bind = primitive.bind

    def watched(*args, **params):
      found.append(params['precision'])
      return bind(*args, **params)

    monkeypatch.setattr(primitive, 'bind', watched)

  watch(lax.dot_general_p)
  watch(lax.conv_general_dilated_p)
  # What one test traces, the next need not: its products have been checked.
  with traces.fresh('watched'):
    yield found


def _with_a_lower_default(run):
  """Calls a function that is traced again: the default is part of its key."""
  with jax.default_matmul_precision('bfloat16'):
    return run()


def _equal(found, wanted):
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize('name', HOST)
def test_products_on_the_host_ask_for_the_highest_precision(name, request):
  """So a lower default changes no result."""
  wanted = HOST[name]()
  asked = request.getfixturevalue('asked')
  _equal(_with_a_lower_default(HOST[name]), wanted)
  assert all(map(_at, asked)), asked


def test_the_watch_sees_products(asked):
  run = lambda: jax.jit(jnp.matmul)(X.T, Y)
  run()
  assert asked == [None]
  _with_a_lower_default(run)
  assert len(asked) == 2
  assert not any(map(_at, asked))
  program = jax.make_jaxpr(jax.jit(jnp.matmul))(X.T, Y)
  assert [eqn.params['precision'] for eqn in products(program)] == [None]


# Operations with products of each kind, by room.
COMPILED = {
  'merging': ('merge.tsv', 'merge.iso_c', 'merge.iso_cts', 'merge.regmean'),
  'scaling': (
    *('scale.compose of low rank, leaf', 'scale.linearise', 'scale.tip_logits'),
    "scale.compose of a stack, ('random', 4)", 'landscape.singular_alignment',
  ),
  'aligning': (
    *('stats.cka', 'stats.cca', 'stats.least_squares', 'stats.gram'),
    *('align.unit_gains', 'align.sinkhorn: their gradient'),
  ),
  'stitching': (
    *('stitch.fit, low_rank', 'stitch.translate', 'stitch.relative, basis'),
    *('stitch.orthogonal, exponential', 'stitch.bct_loss', 'stitch.program'),
  ),
}  # fmt: skip


def _compiled(room: str, table: Any) -> list[Any]:
  return [jax.jit(table[n][0])(*table[n][1]) for n in COMPILED[room]]


@pytest.mark.parametrize('room', COMPILED)
def test_a_lower_default_changes_no_result(room):
  wanted = _compiled(room, operations.room(room, 'float32'))
  # The arguments, too, are computed with the lower default.
  run = lambda: _compiled(room, operations.build(room, 'float32'))
  _equal(_with_a_lower_default(run), wanted)
