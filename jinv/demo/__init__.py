"""A tour in three inverse problems, each with a regularisation weight learnt by hypergradient,
and one linear system.

`python -m jinv.demo` deblurs, fills in and reconstructs real pictures with total variation, and
solves for the pressure of a fluid among obstacles, on a laptop's processor in about a minute;
`--image PATH` takes a picture of your own.
"""

from ._main import main as main
