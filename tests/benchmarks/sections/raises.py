def rows(scale):
    yield {"what": "first"}
    raise ValueError("it is no use")
