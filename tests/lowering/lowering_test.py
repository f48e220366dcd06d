"""Every traceable operation is lowered for NVIDIA GPUs, without one at hand.

The StableHLO that XLA would compile on a GPU shows what a CPU's would hide:
calls of LAPACK, callbacks to the host, products without a precision (which
multiply float32 in TF32), and optimization barriers (which constant folding on
a GPU cannot evaluate).
"""

from collections.abc import Iterator
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import operations, traces
from wsl import tree
from wsl.tree._reads import recompute

WIDE = jax.config.read('jax_enable_x64')
# Of each dtype the first operation and the step to the next. All are lowered in
# float32, and each in one more dtype: lowering takes a minute in all three.
DTYPES = {'float32': (0, 1), 'bfloat16': (0, 2)}
if WIDE:
  DTYPES['float64'] = (1, 2)
# Prefixes of the custom calls that XLA and jaxlib have on a GPU.
ON_GPUS = ('cusolver_', 'cublas_', 'cu_', 'cuda_', 'mhlo.', 'chlo.')


def lowered(traced: jax.stages.Traced) -> str:
  """Returns the StableHLO of a function for NVIDIA GPUs."""
  return traced.lower(lowering_platforms=('cuda',)).as_text()


def faults(text: str) -> Iterator[str]:
  """Yields what a GPU would lack, or compute in fewer bits."""
  if 'optimization_barrier' in text:
    yield 'an optimization barrier'
  for target in set(re.findall(r'custom_call @([\w.]+)', text)):
    if not target.startswith(ON_GPUS) or 'callback' in target:
      yield f'custom call {target}'
  for line in text.splitlines():
    if not re.search(r'stablehlo\.(dot_general|convolution)', line):
      continue
    found = re.search(r'precision\w* = \[(?:#stablehlo<precision )?(\w+)', line)
    of_integers = re.search(r'-> tensor<(\w+x)*u?i\d+>', line)
    # HIGH marks the products of the user's function.
    if not of_integers and (not found or found[1] not in ('HIGHEST', 'HIGH')):
      yield f'a product without precision: {line.strip()}'


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('room', operations.ROOMS)
def test_operations_are_lowered_for_nvidia_gpus(room: str, dtype: str) -> None:
  found = {
    name: list(faults(lowered(traced)))
    for name, traced in operations.traced(room, dtype, *DTYPES[dtype]).items()
  }
  assert len(found) > 5
  assert not {name: each for name, each in found.items() if each}


@pytest.mark.parametrize(
  ('fn', 'fault'),
  [
    (jax.lax.optimization_barrier, 'an optimization barrier'),
    (lambda x: x @ x, 'a product without precision'),
    (
      lambda x: jax.lax.conv_general_dilated(
        x[None, None], x[None, None], (1, 1), 'SAME'
      ),
      'a product without precision',
    ),
  ],
)
def test_the_check_detects_faults(fn: Any, fault: str) -> None:
  trace = lambda fn, dtype: jax.jit(fn).trace(jnp.ones((3, 3), dtype))
  (found,) = faults(lowered(trace(fn, 'float32')))
  assert fault in found
  assert not list(faults(lowered(trace(lambda x: x @ x, 'int32'))))


@pytest.mark.parametrize(
  ('fn', 'fault'),
  [
    (jnp.linalg.svd, 'lapack'),
    (lambda x: jax.pure_callback(abs, x, x), 'callback'),
  ],
)
def test_the_check_detects_calls_of_the_host(fn: Any, fault: str) -> None:
  traced = jax.jit(fn).trace(jnp.ones((3, 3), 'float32'))
  text = traced.lower(lowering_platforms=('cpu',)).as_text()
  assert any(fault in found for found in faults(text))


def _double(x: Any) -> Any:
  return 2 * x


def _spread(x: Any, *, by: Any) -> Any:
  return jnp.sum(jnp.square(x)) * by


def test_leaves_are_recomputed_alike_on_every_backend(monkeypatch: Any) -> None:
  """Without a conditional, accelerators compute the same."""

  def both(x: Any, by: Any) -> Any:
    doubled = tree.apply_kernel(_double, tree.defer(x))
    norm = tree.Computed(_spread, (doubled,), {'by': by})
    return recompute.recompute(norm), tree.read(doubled)

  x, by = jnp.arange(6.0, dtype='float32').reshape(2, 3), jnp.float32(0.5)
  traced = jax.jit(both).trace(x, by)
  texts = {
    platform: traced.lower(lowering_platforms=(platform,)).as_text()
    for platform in ('cpu', 'cuda')
  }
  branches = {p: 'stablehlo.compare' in text for p, text in texts.items()}
  assert branches == {'cpu': True, 'cuda': False}
  wanted = jax.jit(both)(x, by)
  monkeypatch.setattr(
    jax.lax, 'platform_dependent', lambda *xs, cpu, default: default(*xs)
  )
  with traces.fresh():
    found = jax.jit(both)(x, by)
  jax.tree.map(
    lambda a, b: (a == b).all() or pytest.fail('differ'), found, wanted
  )
  assert found[0] == 2 * 55


BRANCHED = {
  'merging': ('merge.fisher', 'merge.weighted_mean', 'merge.ties', 'tree.norm'),
  'scaling': (
    *('scale.compose of a bfloat16 stack, leaf, differentiated',),
    *('scale.scan of a bfloat16 stack', 'scale.pull_back, random cells'),
  ),
}


@pytest.mark.parametrize('room', BRANCHED)
def test_branches_for_accelerators_compute_the_same(
  room: str, monkeypatch: Any
) -> None:
  table = operations.room(room, 'float32')
  cases = [table[name] for name in BRANCHED[room]]
  wanted = [jax.jit(fn)(*args) for fn, args in cases]
  taken = []

  def branch(*args: Any, cpu: Any, default: Any) -> Any:
    taken.append(cpu)
    return default(*args)

  monkeypatch.setattr(jax.lax, 'platform_dependent', branch)
  with traces.fresh():
    found = [jax.jit(fn)(*args) for fn, args in cases]
  assert taken
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
