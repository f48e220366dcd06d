r"""Properties that entries have for almost all parameters and inputs.

``top_k`` and ``argmax`` return the same experts in any order of the experts
only if no two scores are equal: equal ones are ranked by position. Scores
:math:`x W_e` of a router differ almost surely, because the columns of W are
independent of each other and of :math:`x \ne 0`. Scores behind a ReLU are
equal, to zero, with positive probability.

Leaves of parameters and floating inputs, the *roots*, are taken to have a joint
density. Everything below is conditional on all roots but one (Fubini).
"""
