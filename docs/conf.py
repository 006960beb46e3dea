"""The documentation site: ``make docs``."""

import importlib.metadata

project = "jmbrl"
author = "the jmbrl authors"
release = importlib.metadata.version("jmbrl")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton"]
html_theme = "furo"
html_title = "jmbrl"
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and ranges stand in the text
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_use_ivar = True  # fields of NamedTuples are described once, in the class
napoleon_custom_sections = [("Source", "notes_style")]
