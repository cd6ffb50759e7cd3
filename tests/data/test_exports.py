import ast
import subprocess
import sys
from pathlib import Path

import dpmed.data


def test_every_exported_name_exists():
    for name in dir(dpmed.data):
        assert getattr(dpmed.data, name) is not None


def test_type_checkers_see_the_same_names():
    source = Path(dpmed.data.__file__).read_text()
    found = {
        alias.asname: str(node.module).removeprefix("dpmed.data.")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("dpmed.data")
        for alias in node.names
    }
    assert found == dpmed.data.MODULE_OF_NAME


def test_importing_the_package_is_light():
    command = "import sys, dpmed.data; print('torch' in sys.modules, 'pandas' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "False"]
