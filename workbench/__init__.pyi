# The public names and where they come from; `__init__.py` imports each when it is first used.
from . import plots as plots
from .attribution.lead_word import reliance as reliance
from .attribution.methods import attribute as attribute
from .data.example import Example as Example
from .data.first_words import audit as audit
from .data.readers import read_examples as read_examples
from .data.splits import miniguard_split as miniguard_split
from .errors import UserError as UserError
from .evaluation.evaluate import evaluate as evaluate
from .models.generation import Generation as Generation
from .models.load import load as load
from .studies.headline import headline as headline
from .training.sets import repair as repair
from .training.train import train as train
from .widgets import AttributionExplorer as AttributionExplorer
from .widgets import CurveExplorer as CurveExplorer
from .widgets import Game as Game
from .widgets import LiveProbe as LiveProbe
from .widgets import live_curves as live_curves

__version__: str
