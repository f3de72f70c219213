"""Forward models as lineax operators with exact adjoints."""

from ._base import AbstractOperator as AbstractOperator, adjoint as adjoint
