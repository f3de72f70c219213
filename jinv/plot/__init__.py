"""Figures of pictures, of convergence and of benchmark records."""

from ._benchmark import scaling as scaling, work_precision as work_precision
from ._convergence import convergence as convergence
from ._images import images as images
from ._profile import performance_profile as performance_profile
from ._save import save as save
