import subprocess
import sys

import dpmed.data


def test_every_exported_name_exists():
    for name in dir(dpmed.data):
        assert getattr(dpmed.data, name) is not None


def test_importing_the_package_is_light():
    command = "import sys, dpmed.data; print('torch' in sys.modules, 'pandas' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "False"]
