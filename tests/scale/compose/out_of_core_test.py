"""A fit out of core equals the fit in memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.scale import problem
from wsl import scale, tree

params = problem.params
run = problem.run
stored = problem.stored
BANK = problem.BANK
BASE = problem.BASE
KEY = problem.KEY
MODELS = problem.MODELS
X = problem.X
Y = problem.Y


@pytest.mark.parametrize('by', ['all', 'leaf', 'channel', ('random', 3)])
@pytest.mark.parametrize('where', ['device', 'host', 'disk'])
def test_out_of_core_finds_the_same_coefficients(by: Any, where: str) -> None:
  log: list[int] = []
  bank = BANK
  if where == 'host':
    bank = jax.tree.map(np.asarray, BANK)
  if where == 'disk':
    lazy = [jax.tree.map(lambda x: stored(x, log), m) for m in MODELS]
    bank = scale.bank(BASE, lazy)
  coefs = scale.init(BANK, by=by, key=KEY)
  settings: Any = {'coefs': coefs, 'bank': bank}
  found = run(**settings, stream=None if where == 'disk' else True)
  wanted = run(by=by)
  np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-10)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-10),
    found.coefs,
    wanted.coefs,
  )
  assert len(log) == (20 * 2 * 9 if where == 'disk' else 0)


def test_leaves_are_pulled_back_in_reverse_order() -> None:
  log: list[str] = []

  def stored(t: int, name: str, x: Any) -> tree.Stored:
    x = np.asarray(x)
    return tree.Stored(lambda: log.append(f'{name} {t}') or x, x.shape, x.dtype)

  base = params(0)
  lazy = [
    {name: stored(t, name, x) for name, x in params(t).items()} for t in (1, 2)
  ]
  bank = scale.bank(base, lazy)
  run(base=base, bank=bank, coefs=scale.init(bank, by='leaf'), steps=2)
  names = [entry.split()[0] for entry in log[::2]]
  there = ['block_0', 'block_1', 'out']
  assert names == (there + there[::-1]) * 2


def test_out_of_core_in_float32_to_1e_5_after_20_steps() -> None:
  narrow = lambda t: jax.tree.map(
    lambda x: np.asarray(x, np.float32) if x.ndim else x, t
  )
  base = narrow(BASE)
  bank = scale.bank(base, [narrow(m) for m in MODELS], dtype=jnp.bfloat16)
  coefs = scale.init(bank, by='leaf')
  batches = [(np.asarray(X, np.float32), Y)]
  settings: Any = {'base': base, 'bank': bank, 'coefs': coefs}
  found = [run(**settings, batches=batches, stream=s) for s in (False, True)]
  assert found[0].coefs['out'].dtype == jnp.float32
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5),
    found[0].coefs,
    found[1].coefs,
  )


def test_out_of_core_sums_over_tied_and_skips_absent_leaves() -> None:
  w = jnp.asarray(params(0)['out'])
  base = {'a': w, 'b': w, 'c': w + 1}
  moved = w + 1
  models = [{'a': moved, 'b': moved, 'c': None}, base | {'c': w}]
  bank = scale.bank(base, models)
  target = lambda p, batch, key: sum(
    jnp.sum((i + p[n]) ** 2) for i, n in enumerate('abc')
  )
  one, two = (
    run(
      objective=target,
      base=base,
      bank=bank,
      coefs=scale.init(bank, by='leaf'),
      batches=[0.0],
      stream=stream,
    )
    for stream in (False, True)
  )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12),
    one.coefs,
    two.coefs,
  )
  assert one.coefs['a'][0] < 0
