"""CLR: a small convolution after each frozen one, for a new task."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from wsl import jaxprs, tree, types

Patches: TypeAlias = dict[str, types.Array]
_CONV = 'conv_general_dilated'


def channel_patches(
  apply_fn: Callable[..., Any],
  params: types.Params,
  *inputs: Any,
  leaves: types.Leaves = '',
  size: int = 3,
  pointwise: bool = False,
) -> Patches:
  r"""Returns one small kernel for each output channel of each convolution.

  .. math:: y'_c = k_c * y_c, \qquad k_c = \delta \ \text{at the start}

  The patches are the parameters of a task; the model stays frozen. They start
  as Dirac kernels, with which ``reprogrammed`` computes what the model does.

  Args:
    apply_fn: ``(params, *inputs) -> anything``; it is traced, nothing is
      computed.
    params: any pytree of arrays or shapes; kernels of convolutions of any rank
      and layout are found in the traced function.
    *inputs: one batch, arrays or ``jax.ShapeDtypeStruct``.
    leaves: the kernels to patch, by a regular expression or a predicate.
    size: k, odd; 3 in the paper.
    pointwise: whether kernels of size 1 are patched as well ("CLR-Full").

  Returns:
    Kernels ``[k, ..., k, channels]`` by the names of the leaves.

  Raises:
    ValueError: if the size is even, or no convolution is found. One in a
      ``scan`` over layers, or whose kernel is altered before, is not found.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> conv = lambda p, x: jax.lax.conv(x, p['w'], (1, 1), 'SAME')
    >>> params = {'w': jnp.ones((4, 3, 3, 3))}
    >>> channel_patches(conv, params, jnp.ones((1, 3, 8, 8)))['w'].shape
    (3, 3, 4)

  Reference:
    Ge et al., "CLR: Channel-wise Lightweight Reprogramming for Continual
    Learning", 2023, arXiv:2307.11386.

  Differs from the official code where a convolution has a bias, which is added
  after the patch here; the authors' networks have none.
  """
  tree.check_whole('channel_patches', size=size)
  if size < 1 or size % 2 == 0:
    raise ValueError(f'channel_patches: size={size}: expected an odd number')
  chosen = tree.named(tree.select(params, leaves))
  program = jaxprs.trace(apply_fn, params, inputs, caller='channel_patches')
  found: Patches = {}
  dtypes = {name: x.dtype for name, x in tree.named(params).items()}

  def visit(eqn: Any, name: str) -> None:
    spec = eqn.params['dimension_numbers']
    kernel = jaxprs.shape_of(eqn.invars[1])
    window = [kernel[a] for a in spec.rhs_spec[2:]]
    if chosen[name] and (pointwise or any(n > 1 for n in window)):
      shape = *(size for _ in window), kernel[spec.rhs_spec[0]]
      middle = (size // 2,) * len(window)
      found[name] = jnp.zeros(shape, dtypes[name]).at[middle].set(1)

  names = list(chosen)
  tags: list[Any] = [*names, *[None] * (len(program.jaxpr.invars) - len(names))]
  _find(program, tags, visit)
  if not found:
    raise ValueError(
      'channel_patches: no convolution has one of the chosen leaves as its '
      'kernel: choose others by leaves=, or pointwise=True for kernels of 1 x 1'
    )
  return found


def reprogrammed(
  apply_fn: Callable[..., Any],
) -> Callable[..., Any]:
  """Returns a function that runs a model with the patches of a task.

  Args:
    apply_fn: ``(params, *inputs) -> anything``.

  Returns:
    A function ``(params, patches, *inputs)`` with the results of ``apply_fn``;
    each convolution with a patch is followed by a depthwise convolution of the
    same size of output (stride 1, zero padding). It can be compiled,
    differentiated and mapped; it traces ``apply_fn`` in each call outside of
    ``jit``.

  Raises:
    ValueError: in a call, if a patch belongs to no convolution.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> conv = lambda p, x: jax.lax.conv(x, p['w'], (1, 1), 'SAME')
    >>> params, x = {'w': jnp.ones((4, 3, 3, 3))}, jnp.ones((1, 3, 8, 8))
    >>> patches = channel_patches(conv, params, x)
    >>> y = jax.jit(reprogrammed(conv))(params, patches, x)
    >>> bool(jnp.all(y == conv(params, x)))
    True

  Reference:
    Ge et al., "CLR: Channel-wise Lightweight Reprogramming for Continual
    Learning", 2023, arXiv:2307.11386.
  """

  def apply(params: types.Params, patches: Patches, *inputs: Any) -> Any:
    program = jaxprs.trace(apply_fn, params, inputs, caller='reprogrammed')
    call, arrays = jaxprs.bind_static(apply_fn, inputs)
    out = jax.tree.structure(jax.eval_shape(call, params, arrays))
    used: set[str] = set()
    named = tree.named(params)
    args: list[Any] = [(x, name) for name, x in named.items()]
    args += [(x, None) for x in jax.tree.leaves(arrays)]
    results = _patched(program, args, patches, used)
    unused = sorted(set(patches) - used)
    if unused:
      raise ValueError(
        f"reprogrammed: the patch '{unused[0]}' belongs to no convolution of "
        'this function: make patches by channel_patches'
      )
    return jax.tree.unflatten(out, [value for value, _ in results])

  return apply


def _find(
  program: Any, tags: list[Any], visit: Callable[[Any, str], None]
) -> list[Any]:
  """Visits the convolutions whose kernel is a leaf, by its name."""

  def step(_: int, eqn: Any, values: list[Any]) -> list[Any]:
    inner = jaxprs.called(eqn)
    if inner is not None:
      return _find(inner, values, visit)
    if eqn.primitive.name in jaxprs.CASTS:
      return [values[0]]
    if eqn.primitive.name == _CONV and values[1] is not None:
      visit(eqn, values[1])
    return [None] * len(eqn.outvars)

  return jaxprs.interpret(program, tags, step, lift=lambda _: None)


def _patched(
  program: Any, args: list[Any], patches: Patches, used: set[str]
) -> list[Any]:
  """Runs a program on pairs of a value and the leaf that it is, or None."""

  def step(_: int, eqn: Any, pairs: list[Any]) -> list[Any]:
    inner = jaxprs.called(eqn)
    if inner is not None:
      return _patched(inner, pairs, patches, used)
    found = jaxprs.evaluate(eqn, [value for value, _ in pairs])
    if eqn.primitive.name in jaxprs.CASTS:
      return [(found[0], pairs[0][1])]
    if eqn.primitive.name == _CONV and pairs[1][1] in patches:
      used.add(pairs[1][1])
      found = [_depthwise(found[0], patches[pairs[1][1]], eqn.params)]
    return [(x, None) for x in found]

  return jaxprs.interpret(program, args, step, lift=lambda x: (x, None))


def _depthwise(y: types.Array, patch: types.Array, params: Any) -> types.Array:
  """Convolves each channel of an output with its own kernel."""
  # A depthwise kernel is [k, ..., k, 1, channels], one group for each channel.
  out = params['dimension_numbers'].out_spec
  axes = patch.ndim - 1
  numbers = jax.lax.ConvDimensionNumbers(
    lhs_spec=out, rhs_spec=(axes + 1, axes, *range(axes)), out_spec=out
  )
  return jax.lax.conv_general_dilated(
    y,
    patch[..., None, :].astype(y.dtype),
    window_strides=(1,) * axes,
    padding='SAME',
    dimension_numbers=numbers,
    feature_group_count=patch.shape[-1],
    precision='highest',
  )
