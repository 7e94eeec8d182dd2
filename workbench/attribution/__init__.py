"""Attribution: which words and which parts of a picture speak for an answer, and whether the explanation can be trusted."""
