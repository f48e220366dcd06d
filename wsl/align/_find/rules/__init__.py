"""The constraints that each primitive puts on the axes of its operands.

To teach a primitive, edit the first of these places that fits it. No other
code in ``wsl`` depends on the names of primitives.

1. It runs an inner jaxpr on its operands, as ``jit`` does: ``jaxprs.CALLS``.
   This teaches ``align``, ``stats`` and ``stitch`` at once.
2. It returns its operand's entries in place and changes only their dtype or
   placement: ``jaxprs.CASTS``, for ``align`` and ``stats``.
3. It acts on each entry separately: ``rules/elementwise.py``, ``ELEMENTWISE``.
4. Anything else: a function in ``rules/elementwise.py`` (reductions, sorting),
   ``rules/shape.py`` and ``rules/reshape.py`` (move entries),
   ``rules/indexing.py`` (gathers, scatters, computed positions),
   ``rules/linear.py`` (products, convolutions, windows) or
   ``rules/batched.py`` (stacks of matrices, transforms), and its line in
   ``rules/table.py``. Then add a case to ``tests/align/find/rules_test.py``: a
   function whose group is known.

Five properties of a primitive have tables of their own:

- It keeps pieces, such as the queries and keys of a fused projection, separate:
  ``_find/pieces.py``, ``_dim_after``.
- Its results are indices, or it takes indices: ``_find/indices/``.
- Its results are almost surely distinct or nonzero: ``_find/generic/``.
- It is homogeneous, odd or even: ``_gauges/powers/primitives.py``. The rules of
  other primitives are in ``_gauges/powers/rules.py`` for scales and signs, in
  ``_gauges/linear/rules.py`` for rotations and linear maps, and in
  ``_gauges/phases/rules.py`` for phases. Without a rule, none of them acts
  there.
- It multiplies a weight by a value: ``jaxprs.PRODUCTS`` for the sites of
  activations, ``stats/_linear_maps/reader.py`` for moments of its inputs,
  ``stitch/_routes/cost.py`` for the number of operations. If it rearranges
  weights before the product: ``stats/_linear_maps/views.py``, ``propagate``.

Loops (``scan``, ``while``, ``cond``) are handled by ``_find/loop_reader.py``
and ``stats/_linear_maps/reader.py``, ``custom_linear_solve`` by
``_find/solves.py``, ``shard_map`` by ``_find/shards.py``. For an opaque kernel
of your own, no edit is needed: pass ``find_symmetry(rules=...)`` a function
that computes the same.

A missing rule is safe: ``align`` pins every axis of the operands and results,
and ``stats`` reports the primitive in the notes of ``linear_maps``.
"""
