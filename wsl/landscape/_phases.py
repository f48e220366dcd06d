"""Phases of training, from four metrics of a population."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import tree, types

PHASES = ('I', 'II', 'III', 'IV-A', 'IV-B')


def phases(
  loss: types.ArrayLike,
  connectivity: types.ArrayLike,
  similarity: types.ArrayLike,
  *,
  low_loss: types.Scalar,
  barrier: types.Scalar,
  similar: types.Scalar,
) -> types.Array:
  r"""Labels trainings by the phase of their loss landscape.

  ====  ======  ====================  ==============  ===================
  code  phase   training loss         mc              CKA
  ====  ======  ====================  ==============  ===================
  0     I       above ``low_loss``    < ``-barrier``  any
  1     II      above ``low_loss``    otherwise       any
  2     III     at most ``low_loss``  < ``-barrier``  any
  3     IV-A    at most ``low_loss``  otherwise       below ``similar``
  4     IV-B    at most ``low_loss``  otherwise       otherwise
  ====  ======  ====================  ==============  ===================

  The papers call I under-fitted and too small, II under-fitted, III too small,
  IV-A over-fitted, and IV-B generalising.

  The Hessian decides nothing: it is reported to be large in phases I and II and
  small in the others, which can be tested.

  Args:
    loss: training losses, any shape ``[...]``, such as temperature by load.
    connectivity: of pairs of seeds, ``[...]``; from ``connectivity``.
    similarity: the CKA of outputs of pairs of seeds, ``[...]``, from
      ``stats.cka``.
    low_loss: the largest loss that counts as low.
    barrier: the largest barrier that counts as none, ``>= 0``, in units of the
      loss of the curve.
    similar: the smallest CKA that counts as high.

  Returns:
    Codes ``[...]``, int32: positions in ``landscape.PHASES``. NaN in any metric
    gives -1.

  Raises:
    ValueError: if shapes differ, or a threshold is no number.

  Example:
    >>> import jax.numpy as jnp
    >>> loss = jnp.asarray([2.0, 0.1, 0.1, 0.1])
    >>> mc = jnp.asarray([-1.0, -1.0, 0.0, 0.0])
    >>> cka = jnp.asarray([0.0, 0.0, 0.3, 0.9])
    >>> found = phases(loss, mc, cka, low_loss=0.5, barrier=0.1, similar=0.6)
    >>> [PHASES[i] for i in found]
    ['I', 'III', 'IV-A', 'IV-B']

  Reference:
    Yang et al., "Taxonomizing Local versus Global Structure in Neural Network
    Loss Landscapes", 2021, arXiv:2107.11228; Schürholt et al., "A Model Zoo on
    Phase Transitions in Neural Networks", 2025, arXiv:2504.18072.

  Differs from both in that the thresholds are arguments.
  """
  tree.check_scalars(
    'phases', low_loss=low_loss, barrier=barrier, similar=similar
  )
  named = {'loss': loss, 'connectivity': connectivity, 'similarity': similarity}
  shapes = {name: jnp.shape(x) for name, x in named.items()}
  for name, shape in shapes.items():
    if shape != shapes['loss']:
      raise ValueError(
        f'phases: {name} has shape {shape}, but loss {shapes["loss"]}: give '
        'one value for each training'
      )
  metrics = [tree.widen(jnp.asarray(x))[0] for x in named.values()]
  x, mc, cka = metrics
  low, blocked = x <= _number(low_loss, x), mc < -_number(barrier, mc)
  alike = cka >= _number(similar, cka)
  code = jnp.where(
    low,
    jnp.where(blocked, np.int32(2), jnp.where(alike, np.int32(4), np.int32(3))),
    jnp.where(blocked, np.int32(0), np.int32(1)),
  )
  unknown = jnp.isnan(x) | jnp.isnan(mc) | jnp.isnan(cka)
  return jnp.where(unknown, np.int32(-1), code)


def _number(value: Any, like: types.Array) -> types.Array:
  """Casts a threshold to the dtype of what it is compared with."""
  return jnp.asarray(value).astype(like.dtype)
