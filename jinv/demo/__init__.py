"""A tour in three inverse problems, each with a regularisation weight learnt by hypergradient.

`python -m jinv.demo` deblurs, fills in and reconstructs real pictures with total variation, on
a laptop's processor in about a minute; `--image PATH` takes a picture of your own.
"""

from ._main import main as main
