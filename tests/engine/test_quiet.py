"""No telemetry: no process is started to report that OpenVINO was imported or used."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import multiprocessing.process
started = []
multiprocessing.process.BaseProcess.start = lambda process: started.append(process)
import lorablend.engine.genai, lorablend.engine.live, lorablend.engine.bake
from lorablend.shipped import model_dir
from lorablend.engine import Pipeline
Pipeline(model_dir(), cache_dir={cache!r}).generate("a fox", steps=1)
import time; time.sleep(1)
print(len(started))
"""


def test_no_telemetry(tmp_path: object) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "DO_NOT_TRACK")}
    code = CODE.format(cache=str(tmp_path))
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "0"
