"""Studies: experiments of many steps, each with its tables and its report."""
