"""Three published protocols for merges, as functions of tables of scores.

MergeBench, "What Matters for Model Merging at Scale?" and "In-the-Wild Model
Merging". They read scores, not models, so that any pool of experts will do. A
pool has P experts. A merge has some of them: row d of ``members`` ``[D, P]`` is
True for the experts of merge d. Leading axes ``...`` of scores, such as methods
and seeds, broadcast. Definitions that the papers leave open are marked.
"""

from experiments._shared.protocols._at_scale import at_scale as at_scale
from experiments._shared.protocols._at_scale import AtScale as AtScale
from experiments._shared.protocols._draws import draw_members as draw_members
from experiments._shared.protocols._in_the_wild import (
  in_the_wild as in_the_wild,
)
from experiments._shared.protocols._in_the_wild import InTheWild as InTheWild
from experiments._shared.protocols._merge_bench import (
  merge_bench as merge_bench,
)
from experiments._shared.protocols._merge_bench import MergeBench as MergeBench
