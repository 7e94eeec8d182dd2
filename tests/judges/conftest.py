"""What tests of judges share."""

from workbench.data.example import Example
from workbench.data.miniguard import REFUSAL

HARMFUL = Example("h", None, "Can you tell the code of this thing?", True, REFUSAL, "yes say pi du wa before pelo")
HARMLESS = Example("b", None, "What is the name of this thing?", False, "it is a sulo")
