"""Sizes of compiled programs: they do not depend on the number of leaves.

A plain elementwise method has some instructions for each leaf, in kernels that
XLA compiles once for equal leaves. What is expensive to compile, the loop and
the sorts of a search by rank or a random generator, is in the program once for
all leaves; in the loop each leaf has two reductions.
"""

from collections.abc import Callable
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import traces
from wsl import merge

T = 3
KEY = jax.random.key(1)
# The method, and the most instructions that each further leaf may add.
METHODS: dict[str, tuple[Callable[[Any], Any], int]] = {
  'sum': (merge.sum, 30),
  'mean': (merge.mean, 30),
  'weighted_mean': (lambda d: merge.weighted_mean(d, jnp.ones(T)), 40),
  'mean_nonzero': (merge.mean_nonzero, 40),
  'fisher': (lambda d: merge.fisher(d, fishers=d, normalize=True), 90),
  'tall_masks': (lambda d: merge.tall_masks(d, threshold=0.4), 80),
  'consensus': (lambda d: merge.consensus(d, threshold=0.4, min_tasks=2), 80),
  'elect_sign': (merge.elect_sign, 150),
  'dare': (lambda d: merge.dare(d, rate=0.5, key=KEY), 120),
  'trim': (lambda d: merge.trim(d, density=0.2), 220),
  'trim leaf': (lambda d: merge.trim(d, density=0.2, scope='leaf'), 220),
  'breadcrumbs': (
    lambda d: merge.breadcrumbs(d, density=0.2, outliers=0.1),
    300,
  ),
  'ties': (lambda d: merge.ties(d, density=0.2), 450),
  'ties leaf': (lambda d: merge.ties(d, density=0.2, scope='leaf'), 450),
}
# Instructions that a loop, a sort or a conditional needs once.
ONCE = ('while', 'sort')


def program(method: Any, leaves: int) -> str:
  x = jax.ShapeDtypeStruct((T, 130, 190), jnp.float32)
  stack = {f'block_{i}/kernel': x for i in range(leaves)}
  return jax.jit(method).lower(stack).compile().as_text()


@functools.cache
def instructions(name: str, leaves: int) -> list[str]:
  """Returns the names of the operations of an optimised program."""
  text = program(METHODS[name][0], leaves)
  return re.findall(
    r'^\s+(?:ROOT )?%[\w.\-]+ = .*?[\s)]([\w\-]+)\(', text, re.M
  )


@pytest.mark.cpu_only('it reads the compiled program')
@pytest.mark.parametrize('name', METHODS)
def test_loops_and_sorts_do_not_grow_with_leaves(name: str) -> None:
  few, many = (instructions(name, n) for n in (2, 4))
  assert len(few) > 5
  for operation in ONCE:
    assert many.count(operation) <= few.count(operation) + 1, operation
  assert (len(many) - len(few)) / 2 <= METHODS[name][1]


def test_a_statistic_is_not_copied_into_each_leaf() -> None:
  """The sum of L parts, which L leaves use, is not L^2 additions."""
  five, ten, twenty = (len(instructions('elect_sign', n)) for n in (5, 10, 20))
  assert twenty - ten < 2.2 * (ten - five)


@pytest.mark.parametrize('name', METHODS)
def test_an_eager_call_compiles_once_for_a_shape(name: str) -> None:
  def compiled(leaves: int) -> int:
    # A width of its own for each method: no program is there already.
    shape = (T, 300, 901 + list(METHODS).index(name))
    draw = np.random.default_rng(0).standard_normal
    x = jnp.asarray(draw(shape, np.float32))
    stack = {f'block_{i}/kernel': x for i in range(leaves)}
    before = traces.programs()
    METHODS[name][0](stack)
    return traces.programs() - before

  # A GPU computes twelve leaves by one program.
  few, many = (12, 24) if jax.default_backend() == 'gpu' else (2, 3)
  assert compiled(few) >= 1
  # The samples of all leaves are sorted by one program of so many operands.
  assert compiled(many) <= 1


def of_two(method: Any) -> Any:
  """Calls a merge of two models on the first and the last of a stack."""
  model = lambda d, t: jax.tree.map(lambda x: x[t], d)
  return lambda d, w: method(model(d, 0), model(d, -1))


def of_models(method: Any) -> Any:
  """Calls a merge of a list of models, by weights, on those of a stack."""
  model = lambda d, t: jax.tree.map(lambda x: x[t], d)
  return lambda d, w: method([model(d, t) for t in range(T)], weights=w)


KNOWN = [1.0, 2.0, 0.5]  # weights that are known in a trace
ON_GPUS: dict[str, Callable[..., Any]] = {
  **{name: lambda d, w, fn=fn: fn(d) for name, (fn, _) in METHODS.items()},
  'dare, sum': lambda d, w: merge.sum(merge.dare(d, rate=w, key=KEY)),
  'dare, ties': lambda d, w: merge.ties(
    merge.dare(d, rate=0.5, key=KEY), density=0.2, weights=w
  ),
  'della': lambda d, w: merge.della(d, density=w, epsilon=0.1, key=KEY),
  'breadcrumbs leaf': lambda d, w: merge.breadcrumbs(
    d, density=0.2, outliers=0.1, scope='leaf'
  ),
  'consensus, weights': lambda d, w: merge.consensus(
    d, threshold=w, min_tasks=2
  ),
  'sum, weights': lambda d, w: merge.sum(d, weights=w),
  'weighted_mean, weights': merge.weighted_mean,
  'ties leaf, known weights': lambda d, w: merge.ties(
    d, density=0.2, scope='leaf', weights=KNOWN
  ),
  'emr': lambda d, w: merge.emr(d),
  'magmax': lambda d, w: merge.magmax(d),
  'model_stock': lambda d, w: merge.model_stock(d),
  'pcb': lambda d, w: merge.pcb(d, density=0.1),
  'ram_plus': lambda d, w: merge.ram_plus(d),
  'sce': lambda d, w: merge.sce(d, select=0.5),
  'variance_corrected': lambda d, w: merge.variance_corrected(d),
  'slerp': of_two(functools.partial(merge.slerp, t=0.3)),
  'arcee_fusion': of_two(merge.arcee_fusion),
  'multislerp': of_models(merge.multislerp),
  'karcher': of_models(merge.karcher),
}
# The iteration of a leaf is a loop of its own.
LOOPS_OF_LEAVES = {'karcher'}


@functools.cache
def lowered(name: str, leaves: int) -> str:
  """Returns the StableHLO of a method for NVIDIA GPUs."""
  x = jax.ShapeDtypeStruct((T, 130, 190), jnp.float32)
  stack = {f'block_{i}/kernel': x for i in range(leaves)}
  weights = jax.ShapeDtypeStruct((T,), jnp.float32)
  traced = jax.jit(ON_GPUS[name]).trace(stack, weights)
  return traced.lower(lowering_platforms=('cuda',)).as_text()


# The call of a kernel, its operands and their types.
CALL = r'call @((?:evaluate|_count|_inside)\w*)\((.*?)\) : \((.*?)\) ->'


def count(operation: str, text: str) -> int:
  return len(re.findall(rf'stablehlo\.{operation}\b', text))


def inlined(operation: str, text: str) -> int:
  """Counts an operation as often as XLA has it, which inlines all calls."""
  functions = dict(
    re.findall(r'func\.func \w+ @(\S+?)\((.*?)\n  }', text, re.S)
  )

  @functools.cache
  def within(name: str) -> int:
    called = re.findall(r'call @(\S+?)\(', functions[name])
    return count(operation, functions[name]) + sum(map(within, called))

  return within('main')


@pytest.mark.parametrize('name', ON_GPUS)
def test_on_a_gpu_a_leaf_adds_calls_not_kernels(name: str) -> None:
  """Each further leaf adds calls of functions that are there already."""
  few, many = lowered(name, 4), lowered(name, 8)
  for operation in ('while', 'sort', 'reduce'):
    assert count(operation, many) == count(operation, few), operation
  for operation in ('while', 'sort'):
    if operation != 'while' or name not in LOOPS_OF_LEAVES:
      assert inlined(operation, many) == inlined(operation, few), operation
  lines = lambda text: len(re.findall(r'^\s+(%\S+ = |stablehlo)', text, re.M))
  # The two sides of the importances are operands of a search.
  most = {'arcee_fusion': 120}.get(name, 75)
  assert (lines(many) - lines(few)) / 4 <= most


@pytest.mark.parametrize('name', ['ties', 'pcb'])
def test_programs_do_not_grow_with_the_number_of_models(name: str) -> None:
  def lines(models: int) -> int:
    x = jax.ShapeDtypeStruct((models, 130, 190), jnp.float32)
    weights = jax.ShapeDtypeStruct((models,), jnp.float32)
    traced = jax.jit(ON_GPUS[name]).trace({'w': x}, weights)
    text = traced.lower(lowering_platforms=('cpu',)).as_text()
    return text.count(' = ')

  assert lines(204) <= lines(60) + 10


@pytest.mark.parametrize('name', ON_GPUS)
def test_on_a_gpu_kernels_of_leaves_share_no_array(name: str) -> None:
  """XLA would merge such kernels into one, which grows with their number."""
  for function in lowered(name, 4).split('func.func ')[1:]:
    fixed: set[str] = set()  # constants, and what is computed from them
    for result, operands in re.findall(r'(%\S+) = stablehlo\.(.*)', function):
      if set(re.findall(r'%\w+', operands)) <= fixed:
        fixed.add(result)
    calls: dict[str, set[frozenset[str]]] = {}
    for callee, operands, kinds in re.findall(
      r'call @((?:evaluate|_count|_inside)\w*)\((.*?)\) : \((.*?)\) ->',
      function,
    ):
      pairs = zip(operands.split(', '), kinds.split(', '), strict=True)
      arrays = {x for x, kind in pairs if 'x' in kind.replace('1x', '')}
      calls.setdefault(callee, set()).add(frozenset(arrays - fixed))
    for callee, given in calls.items():
      if len(given) >= 4:
        assert len(frozenset.union(*given)) == sum(map(len, given)), callee
