"""How elementwise primitives change powers of scales and parities of signs.

If an operand is multiplied by s^a, with s > 0, a result is multiplied by
s^(k a): k is the degree of a function that is positively homogeneous. A
function that is not requires a = 0 (``PIN``); one that ignores positive
factors has results of power 0 (``FORGET``). For signs, k = 1 stands for odd and
``FORGET`` for even functions.
"""

import fractions
from typing import Any

from wsl import jaxprs

PIN, FORGET = 'pin', 'forget'
_ODD = (
  'tan', 'tanh', 'sin', 'sinh', 'asin', 'asinh', 'atan', 'atanh', 'erf',
  'erf_inv', 'bessel_i1e',
)  # fmt: skip
# Name -> (degree for positive scales, degree for signs).
UNARY: dict[str, tuple[Any, Any]] = {
  **dict.fromkeys(jaxprs.CASTS, (1, 1)),
  **dict.fromkeys(('neg', 'real', 'imag', 'conj'), (1, 1)),
  **dict.fromkeys(_ODD, (PIN, 1)),
  **dict.fromkeys(('cos', 'cosh', 'bessel_i0e'), (PIN, FORGET)),
  'abs': (1, FORGET),
  'cbrt': (fractions.Fraction(1, 3), 1),
  'is_finite': (FORGET, FORGET),
  'optimization_barrier': (1, 1),
  'rsqrt': (fractions.Fraction(-1, 2), PIN),
  'sign': (FORGET, 1),
  'sqrt': (fractions.Fraction(1, 2), PIN),
  'square': (2, FORGET),
}
# All operands have equal powers, and so has the result. A constant of zeros has
# any power.
SUMS = ('add', 'sub', 'add_any')
EXTREMES = ('max', 'min')  # keep positive factors, but not signs
COMPARISONS = ('lt', 'le', 'gt', 'ge', 'lt_to', 'le_to')
EQUALITIES = ('eq', 'ne', 'eq_to')
# Write or add updates; a product of them adds powers.
SCATTERS = (
  'scatter', 'scatter-add', 'scatter-sub', 'scatter_add', 'scatter_sub',
)  # fmt: skip


def degree(eqn: Any, domain: int) -> Any:
  """Returns the degree of a unary primitive in a domain; None if not unary.

  Args:
    eqn: the equation.
    domain: 0 for positive scales, 1 for signs.
  """
  name = eqn.primitive.name
  if name == 'integer_pow':
    power = eqn.params['y']
    return (power, 1 if power % 2 else FORGET)[domain]
  cast = name == 'convert_element_type'
  if cast and eqn.params['new_dtype'].kind not in 'fVc':
    return PIN
  return UNARY[name][domain] if name in UNARY else None
