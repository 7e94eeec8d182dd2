"""Safety Mirage workbench: see the mirage, take it apart, cure it.

    import workbench as wb
    vlm = wb.load("miniguard")
    vlm.answer(picture, "What is the name of this thing?")

The public names are listed in __init__.pyi. Importing this package is fast: each name is imported when it is
first used.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
