def rows(scale):
    assert scale.tiny
    yield {"what": "first"}
