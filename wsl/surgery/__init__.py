r"""New networks cut from old ones: layers repeated, folded, left out.

A layer program is a value: a list of layers, each made of blocks of a network.
It is stored as JSON and applies to any network of that depth, in memory or in
files::

    program = surgery.passthrough(32, slices=[(0, 24), (8, 32)])
    model = checkpoint.load('model', lazy=True)
    deep = surgery.apply_program(model, program, blocks=r'layers\.(\d+)\.')
    checkpoint.save('deep', deep)
"""

from wsl.surgery._program.apply import apply_program as apply_program
from wsl.surgery._program.compose import compose_programs as compose_programs
from wsl.surgery._program.crash import block_clusters as block_clusters
from wsl.surgery._program.crash import block_similarities as block_similarities
from wsl.surgery._program.crash import crash as crash
from wsl.surgery._program.depth import insert_identity as insert_identity
from wsl.surgery._program.depth import loop as loop
from wsl.surgery._program.depth import passthrough as passthrough
from wsl.surgery._program.depth import path_program as path_program
from wsl.surgery._program.depth import skip as skip
from wsl.surgery._program.depth import stack as stack
from wsl.surgery._program.program import check_program as check_program
from wsl.surgery._program.program import Layer as Layer
from wsl.surgery._program.program import Program as Program
from wsl.surgery._program.program import program_from_json as program_from_json
from wsl.surgery._program.program import program_of as program_of
from wsl.surgery._program.program import program_to_json as program_to_json
from wsl.surgery._program.recursive import recursive as recursive
from wsl.surgery._program.tie import tie as tie
from wsl.surgery._program.tie import Tied as Tied
from wsl.surgery._program.tie import untie as untie
