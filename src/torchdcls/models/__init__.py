"""Models of the papers, through timm.

Importing this package registers them with timm: `timm.list_models("*_dcls_*")` names them, and
`timm.create_model("convnext_tiny_dcls_gaussian")` makes one. `HOSTS` says what they are made of.
"""

from .._extras import needed_by

with needed_by("torchdcls.models", "train"):
    from .registered import HOSTS, Elements, Host

__all__ = ["HOSTS", "Elements", "Host"]
