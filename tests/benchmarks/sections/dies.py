import os


def rows(scale):
    yield {"what": "first"}
    os._exit(3)
