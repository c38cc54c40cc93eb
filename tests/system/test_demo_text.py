"""`make demo SERVICE=text` keeps its promises, with a service that does not know Kanaria."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.stack import Kanaria

# As `examples/languages/demo.yaml`, with shorter steps and without the shadow step.
QUICK = {"steps: [shadow, 10, 50, 100]": "steps: [50, 100]", "soak: 5s": "soak: 1s", "window: 2s": "window: 1s"}
QUICK |= {"watch: 8s": "watch: 1s"}


def test_the_text_demo_promotes_v2_and_rolls_back_the_silently_wrong_v3(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """No request fails, and the reason names the answer that v3 gives too often or too rarely."""
    require_program("envoy")
    example = Path("examples", "languages")
    shutil.copytree(ROOT / example, tmp_path / example)
    text = (ROOT / example / "demo.yaml").read_text()
    for long, short in QUICK.items():
        assert long in text
        text = text.replace(long, short)
    (tmp_path / example / "demo.yaml").write_text(text)
    kanaria = Kanaria.at(tmp_path, tmp_path / "unused", KANARIA_METRICS="scrape", PYTHONPATH=str(ROOT))
    command = [sys.executable, "-m", "kanaria", "demo", "--service", "text"]
    environment = os.environ | kanaria.environment
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((kanaria.home / "demo.json").read_text())
    assert (result["service"], result["promoted"], result["rolled_back"]) == ("text", "languages:v2", "languages:v3")
    assert (result["client_failures"], result["client_requests"] > 300) == (0, True)
    assert result["rollback_signal"].startswith("class:")
    assert 'of its predictions were "' in result["rollback_reason"]
    assert "languages:v3 was rolled back" in Path(result["report"]).read_text()
