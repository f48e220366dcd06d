r"""Rules for indices of an axis: where they arise and where they are used.

A router takes the ``top_k`` of its scores and looks up those experts. If the
experts are permuted by :math:`\pi`, scores and weights alike, the best values
are the same, in the same order, and each index e becomes :math:`\pi(e)`,
unless two scores are equal: ``top_k`` ranks these by position. ``generic``
shows that the scores differ almost surely. An index stands for its one-hot
encoding: a comparison with iota returns it, and a gather is its product with
the operand. Moving indices is harmless. Any other use reads their numbers and
pins the axis.
"""
