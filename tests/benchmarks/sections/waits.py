import subprocess
import time


def rows(scale):
    yield {"what": "first", "pid": subprocess.Popen(["sleep", "100"]).pid}
    time.sleep(100)
