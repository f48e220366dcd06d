"""Walking the jaxpr of a traced function: what every reader of jaxprs shares.

A jaxpr is a list of equations ``outvars = primitive[params] invars``. Three
rooms interpret it: ``align`` propagates axes, ``stats`` propagates views of
weights, ``stitch`` counts products. They differ in the value that they attach
to a variable. The environment, calls, loops and the evaluation of a single
equation are the same and are defined here::

  def visit(k, eqn, values):             # the k-th equation and its operands
    inner = jaxprs.called(eqn)
    if inner is not None:                # jit, remat, custom_vjp ...
      return jaxprs.interpret(inner, values, visit)
    return jaxprs.evaluate(eqn, values)  # or any other meaning

  jaxprs.interpret(program, args, visit)

``wsl/align/_find/rules/__init__.py`` lists what to edit for a new primitive.
"""

from wsl.jaxprs._loops import run_scan as run_scan
from wsl.jaxprs._loops import split_scan as split_scan
from wsl.jaxprs._loops import split_while as split_while
from wsl.jaxprs._trace import bind_static as bind_static
from wsl.jaxprs._trace import leaf_shapes as leaf_shapes
from wsl.jaxprs._trace import trace as trace
from wsl.jaxprs._walk import called as called
from wsl.jaxprs._walk import CALLS as CALLS
from wsl.jaxprs._walk import CASTS as CASTS
from wsl.jaxprs._walk import evaluate as evaluate
from wsl.jaxprs._walk import inner as inner
from wsl.jaxprs._walk import interpret as interpret
from wsl.jaxprs._walk import PRODUCTS as PRODUCTS
from wsl.jaxprs._walk import Program as Program
from wsl.jaxprs._walk import shape_of as shape_of
from wsl.jaxprs._walk import Visit as Visit
