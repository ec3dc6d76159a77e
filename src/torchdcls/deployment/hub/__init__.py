"""Models with DCLS layers on the Hugging Face Hub, or in a folder of the same form.

A folder holds config.json, the arguments of the model's class; model.safetensors, the parameters, each once however
many layers share it; and README.md, the model card. Nothing is unpickled.
"""

from ..._extras import needed_by

with needed_by("torchdcls.deployment.hub", "train"):
    from .card import Result, Results
    from .mixin import DclsHubMixin
    from .timm_model import TimmModel

__all__ = ["DclsHubMixin", "Result", "Results", "TimmModel"]
