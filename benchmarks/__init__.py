"""What things cost, as ratios measured side by side in one run."""

from __future__ import annotations

import json


def show(found: list[dict], as_json: bool) -> None:
    """Print a benchmark's rows as a table, or as JSON."""
    import pandas as pd

    print(json.dumps(found, indent=2) if as_json else pd.DataFrame(found).to_string(index=False, float_format="{:.3f}".format))
