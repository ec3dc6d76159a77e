"""The site: `python -m sphinx -W docs build/site`. Nothing is fetched while it is built or read."""

import sys
from pathlib import Path

import torchdcls

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "torchdcls"
author = "The torchdcls authors"
copyright = "The torchdcls authors"
version = release = torchdcls.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "docstrings",
    "commands",
]
exclude_patterns = ["notebooks/*.py", "notebooks/*.ipynb"]

html_theme = "furo"
html_title = "torchdcls"
html_favicon = "_static/icon.png"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sphinx = False
smartquotes_action = "D"  # dashes alone: quotes are code to copy

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autoclass_content = "both"  # layers say in `__init__` what they take
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_custom_sections = ["Gradients", "Source"]
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
