"""Models of the papers, through timm.

Importing this package registers them with timm: `timm.list_models("*_dcls_*")` names them, and
`timm.create_model("convnext_tiny_dcls_gaussian")` makes one. `HOSTS` says what they are made of.
"""

from .registered import HOSTS, Elements, Host
from .small import SmallModel, small_model

__all__ = ["HOSTS", "Elements", "Host", "SmallModel", "small_model"]
